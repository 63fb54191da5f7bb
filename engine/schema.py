"""The sections and keys of a configuration: what may stand in a settings file, of which type, with which default."""

import os
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

# The only imports of rooms above the engine: each list of names is written where its variants are.
from datasets.clips import OnBadSample
from datasets.decoders import Decoder, DecoderDevice
from datasets.frames import check_template
from datasets.readers import Format
from models.sifa import OffsetInit, OffsetSource
from models.temporal import Stage, Temporal

PathText = Annotated[str, AfterValidator(os.path.expanduser)]  # `~` is the home folder


class Section(BaseModel):
    """A section of the configuration.

    Attributes:
        renamed: old names of keys, which are still accepted, with their present names.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_old_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for old, new in cls.renamed.items():
            if old in values:
                if new in values:
                    raise ValueError(f"{old} is the old name of {new}: give one of the two")
                values[new] = values.pop(old)
        return values


class Dataset(Section):
    """Where the frames are and which of them make a clip (`num_segments x clip_length x num_steps`)."""

    name: str = Field("kinetics400", description="what `tools.predict` says that a checkpoint was trained on")
    root_path: PathText = Field("", description="folder of the training list's paths; for SHARDS a URL, too")
    list_file: PathText = Field("", description="training list, a line `path num_frames label` for each video")
    eva_root_path: PathText = Field("", description="as root_path, for validation; empty: root_path")
    eva_list_file: PathText = Field("", description="validation list")
    classes_file: PathText = Field("", description="class names, one a line in the order of the labels; may be empty")
    num_classes: int = Field(400, ge=1, le=100_000, description="labels are 0 to num_classes - 1")
    format: Format = Field(
        "FRAME",
        description="JPEG folders, LMDB (one a video, or few files), tar files, or video files: docs/data.md",
    )
    frame_template: str = Field("", description="name of frame i; empty: {:05d}.jpg for FRAME, else {:06d}.jpg")
    first_frame: int = Field(1, ge=0, le=1_000_000, description="number of the first frame's file")
    shard_cache: PathText = Field("", description="folder for the shards of a URL; empty: ~/.cache/sifa/shards")
    shard_cache_gb: float = Field(50.0, gt=0, description="gigabytes that this folder may take")
    shard_window: int = Field(64, ge=1, description="shards whose videos are mixed in a training; 1 mixes each alone")
    decoder: Decoder = Field("auto", description="of VIDEO; auto: torchcodec where it loads, else OpenCV: docs/data.md")
    decoder_device: DecoderDevice = Field("cpu", description="cuda: torchcodec decodes on the GPU; not tried yet")
    num_segments: int = Field(1, ge=1, le=1024, description="segments of a video that a clip is drawn from")
    clip_length: int = Field(16, ge=1, le=1024, description="consecutive samples in each segment")
    num_steps: int = Field(1, ge=1, le=10_000, description="frames from one sample to the next")
    num_workers: int = Field(8, ge=0, le=1024, description="loader processes for each training process")
    on_bad_sample: OnBadSample = Field(
        "raise", description="a training video that cannot be read: stop, or draw another; validation always stops"
    )
    max_bad_fraction: float = Field(0.01, ge=0, lt=1, description="share of the videos that may be replaced")

    @field_validator("frame_template")
    @classmethod
    def _names_a_file(cls, template: str) -> str:
        try:
            if template:
                check_template(template)
        except ValueError:
            raise ValueError(
                f"must be a file name with a place for the frame's number, like {{:05d}}.jpg, got {template}"
            ) from None
        return template


class RandAugment(Section):
    n: int = Field(2, ge=1, description="operations in a row")
    m: int = Field(9, ge=0, le=30, description="their strength")


class Transform(Section):
    """What is done to a training clip, one draw for all its frames."""

    crop_size: int = Field(224, ge=8, le=2048, description="side of a training clip in pixels")
    scale: list[float] = Field([0.2, 1.0], min_length=2, max_length=2, description="share of the frame that is cropped")
    color_jitter: bool = Field(True, description="jitter (p 0.8), grayscale (p 0.2), blur (p 0.5)")
    rand_augment: RandAugment | None = Field(None, description="in place of jitter, grayscale and blur")
    horizontal_flip: bool = Field(True, description="half of the clips; false where left and right matter")
    short_side: list[int] | None = Field(
        None, min_length=2, max_length=2, description="low, high (pixels): jitter and crop in place of scale"
    )
    time_crop: list[float] | None = Field(
        None, min_length=2, max_length=2, description="share of the video that the segments divide; null: all of it"
    )
    random_erasing: float = Field(0.0, ge=0, le=1, description="share of the clips with a rectangle left out")
    mixup_alpha: float = Field(0.0, ge=0, description="of the Beta distribution of the shares; 0: no mixup")
    cutmix_alpha: float = Field(0.0, ge=0, description="as mixup_alpha; with both, a batch has one of them")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target that all classes have")
    repeated_augmentation: int = Field(
        1, ge=1, le=1000, description="draws of a video in a row; an epoch has fewer videos"
    )

    @field_validator("scale", "time_crop")
    @classmethod
    def _is_a_range(cls, shares: list[float] | None) -> list[float] | None:
        if shares and not 0 < shares[0] <= shares[1] <= 1:
            raise ValueError(f"must be two shares in increasing order within (0, 1], got {shares}")
        return shares

    @model_validator(mode="after")
    def _crops_fit(self) -> "Transform":
        if self.short_side and not self.crop_size <= self.short_side[0] <= self.short_side[1]:
            wanted = f"two sizes in increasing order of at least crop_size={self.crop_size}"
            raise ValueError(f"short_side must be {wanted}, got {self.short_side}")
        return self


class Evaluation(Section):
    """Validation: `eva_num_clips x eva_num_crop` views of each video, their softmaxes averaged."""

    eva_inter_freq: int = Field(1, ge=1, description="epochs from one validation to the next")
    eva_num_clips: int = Field(1, ge=1, le=1000, description="clips of each video")
    eva_num_crop: Literal[1, 3] = Field(1, description="crops of each clip: 1 (centre) or 3 along the longer side")
    eva_crop_size: int = Field(
        224, ge=8, le=2048, description="side of a crop; the short side of a frame is resized to it"
    )
    batch_size: int = Field(24, ge=1, description="views at once in each process")


WEIGHT_FILES = ("imagenet_weights", "release_weights", "pretrained_model")  # keys of Network


class Network(Section):
    """A key that is null is the network's own choice; a network refuses keys that it has no use for."""

    net_name: str = Field(
        "c2d_sifa_resnet50", description="the network, named as in the release: see models/__init__.py"
    )
    width: int | None = Field(None, ge=2, le=256, description="channels of res2, where not the paper's")
    stem_frames: Literal[1, 4] | None = Field(
        None, description="SIFA-Net: frames that the stem merges into one (4); with 1 none, at up to 4 times the cost"
    )
    caffe_style: bool | None = Field(
        None, description="SIFA-Net: for Caffe's ImageNet weights (false): docs/training.md"
    )
    dropout_ratio: float = Field(0.5, ge=0, lt=1, description="before the classifiers")
    dual_head: bool | None = Field(None, description="SIFA-Net: a second res5 at the resolution of res4 (true)")
    stochastic_depth: float | None = Field(None, ge=0, lt=1, description="SIFA-Transformer: of the last block")
    patch_norm: bool | None = Field(
        None, description="SIFA-Transformer: a norm after the embedding, as ImageNet's Swin"
    )
    activation_checkpointing: bool | None = Field(
        None, description="computes each block again in the backward pass: less memory, more time"
    )
    pretrained_model: PathText = Field(
        "", description="file of weights to start from, of any kind: see models/weights.py"
    )
    imagenet_weights: PathText = Field("", description="as pretrained_model, but it must be an ImageNet classifier")
    release_weights: PathText = Field("", description="as pretrained_model, but it must be a checkpoint of the release")


class Sifa(Section):
    """Where and how the network looks over time (models/temporal.py)."""

    sifa_kernel: list[int] | None = Field(None, min_length=4, max_length=4, description="size k in res2..res5")
    stages: list[Stage] | None = Field(None, description="that model time")
    temporal: Temporal = Field("sifa", description="what does")
    offset: OffsetSource = Field("motion_saliency", description="what predicts SIFA's offsets")
    offset_init: OffsetInit = Field("zero", description="kaiming: as the release starts its offsets")
    branch_scale: float | None = Field(None, ge=0, le=100, description="start of a learned factor of attention")
    cosine: bool = Field(False, description="attention by cosines of features, and the mean over the taps")
    projection: bool = Field(False, description="a 1x1 convolution of what attention adds, which starts at zero")

    @field_validator("sifa_kernel")
    @classmethod
    def _odd(cls, kernel: list[int] | None) -> list[int] | None:
        if any(k < 1 or k % 2 == 0 for k in kernel or []):
            raise ValueError(f"must be odd, positive sizes, got {kernel}")
        return kernel


class Optimization(Section):
    """SGD or AdamW with warm-up and cosine, stepped every iteration (one batch of every process)."""

    renamed: ClassVar[dict[str, str]] = {"learning_rate_for": "base_batch_size"}

    epochs: int = Field(64, ge=1, le=1_000_000, description="times that the training list is gone through")
    batch_size: int = Field(24, ge=1, description="clips at once in each process")
    iter_size: int = Field(1, ge=1, description="iterations whose gradients are added up for one step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd with momentum, or adamw")
    base_learning_rate: float = Field(0.04, gt=0, description="after the warm-up; see base_batch_size")
    layer_multipliers: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="pattern of parameters' names, like `layers.*`: factor of their learning rate; the last counts",
    )
    freeze: list[str] = Field([], description="patterns of parameters' names that do not train; see freeze_epochs")
    freeze_epochs: int = Field(
        0, ge=0, description="epochs after which frozen parameters train as well; 0: they never do"
    )
    min_learning_rate: float = Field(1e-6, ge=0, description="where the cosine ends")
    warmup_epoch: int = Field(1, ge=0, description="epochs in which the learning rate rises, linearly")
    warmup_multiplier: float = Field(100.0, ge=1, description="the warm-up starts at base_learning_rate over this")
    momentum: float = Field(0.9, ge=0, lt=1, description="for adamw its first beta; the second is 0.999")
    nesterov: bool = Field(False, description="the release's YAML says true, but its script never used it")
    weight_decay: float = Field(1e-4, ge=0, description="of all parameters; see decay_all")
    decay_all: bool = Field(True, description="false: no decay of norms, biases and position tables")
    loss_weight: float = Field(1.0, gt=0, description="factor of the loss, the sum of the heads' cross-entropies")
    clip_gradient: float = Field(40.0, ge=0, description="largest norm of the gradient; 0: no limit")
    base_batch_size: int = Field(
        0, ge=0, description="clips a step that base_learning_rate is meant for; another step scales it in proportion"
    )
    ema_decay: float = Field(0.0, ge=0, lt=1, description="mean of the weights over time, which validates; 0: none")
    batch_norm: Literal["train", "frozen", "sync"] = Field(
        "train", description="frozen: statistics, weights and biases stay; sync: statistics over all processes"
    )
    precise_bn: int = Field(
        0, ge=0, description="batches over which BatchNorm's statistics are computed again before a validation; 0: none"
    )

    @cached_property  # not a key: two configurations with the same keys are equal
    def unused_allowed(self) -> frozenset[str]:
        """The patterns of layer_multipliers and freeze that may match no parameter: they are of a base."""
        return frozenset()

    def allow_unused(self, patterns: frozenset[str]) -> None:
        self.__dict__["unused_allowed"] = patterns

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> "Optimization":
        if self.warmup_epoch >= self.epochs:
            raise ValueError(f"warmup_epoch must be below epochs={self.epochs}, got {self.warmup_epoch}")
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(f"nesterov goes with optimizer sgd, got {self.optimizer}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0")
        return self


class Execution(Section):
    """How it is computed: what changes here changes speed and memory, and the last digits of the results."""

    amp: Literal["none", "bf16", "fp16"] = Field("none", description="autocast; fp16 with a gradient scaler")
    channels_last: bool = Field(True, description="weights of convolutions with the channels innermost")
    compile: bool = Field(False, description="torch.compile of the network; needs a compiler")
    strategy: Literal["ddp", "fsdp"] = Field("ddp", description="ddp: each process holds all weights; fsdp: a share")
    timeout: float = Field(
        1800, gt=0, le=10_000_000, description="seconds that processes wait for one of them before they give up"
    )


class Logging(Section):
    print_freq: int = Field(50, ge=1, description="iterations from one line of the log to the next")
    save_epoch_freq: int = Field(1, ge=1, description="epochs from one epoch_N.pth to the next; last.pth every epoch")
    save_iter_freq: int = Field(0, ge=0, description="iterations from one last.pth to the next, too; 0: epochs alone")
    pictures: bool = Field(
        True, description="after a validation, to TensorBoard: lengths of offsets, and where SIFA looks in a clip"
    )
    wandb: str = Field("", description="project of Weights & Biases that gets the figures too; empty: none")


class Config(Section):
    output_dir: PathText = Field("", description="empty: output/ and the name of the settings file")
    seed: int = Field(0, ge=0, lt=2**32, description="of weights, order, augmentation and dropout")
    deterministic: bool = Field(False, description="deterministic algorithms everywhere, slower on a GPU")
    dataset: Dataset = Dataset()
    transform: Transform = Transform()
    evaluation: Evaluation = Evaluation()
    network: Network = Network()
    SIFA: Sifa = Sifa()
    optimization: Optimization = Optimization()
    execution: Execution = Execution()
    logging: Logging = Logging()

    def network_options(self) -> dict[str, Any]:
        """The options for `models.build_model` that are not left to the network."""
        files = {"net_name", *WEIGHT_FILES}
        options = self.network.model_dump(exclude=files, exclude_none=True)
        return options | self.SIFA.model_dump(exclude_none=True)

    @model_validator(mode="after")
    def _shares_can_do_it(self) -> "Config":
        if self.execution.strategy == "fsdp":
            for what, is_so in (
                ("execution.amp fp16: use bf16", self.execution.amp == "fp16"),
                ("optimization.freeze", bool(self.optimization.freeze)),
            ):
                if is_so:
                    raise ValueError(f"execution.strategy fsdp does not go with {what}")
        return self
