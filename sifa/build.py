"""What a configuration describes: the network and its first weights, data sets, batches, class names."""

import logging
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler

import models
from common.files import is_url
from datasets.clips import ClipDataset, worker_init
from datasets.decoders import describe_decoder
from datasets.normalisation import normalise
from datasets.readers import ReaderOptions
from datasets.transforms import Transform, test_transform, train_transform
from engine.agreement import check_equal
from engine.batch_norm import synchronise_batch_norm
from engine.checkpoint import CheckpointError, checkpoint_file, load_weights, read_checkpoint, weights
from engine.config import ConfigError
from engine.distributed import Process
from engine.eval_loop import Validator
from engine.parallel import shard_fsdp
from engine.prefetch import DevicePrefetcher, build_loader
from engine.samplers import DistributedVideoSampler
from engine.schema import WEIGHT_FILES, Config
from engine.signals import StopSignals
from engine.threads import choose_threads
from sifa.classes import check_same_classes, class_names
from sifa.weight_files import read_weight_file

log = logging.getLogger("sifa")


def build_network(config: Config) -> models.Network:
    """The network of a configuration, with its first weights.

    Raises:
        ConfigError: the network has no such key, or a key has an impossible value.
    """
    try:
        return models.build_model(
            config.network.net_name,
            num_classes=config.dataset.num_classes,
            clip_length=config.dataset.num_segments * config.dataset.clip_length,
            **config.network_options(),
        )
    except ValueError as error:
        raise ConfigError(f"network: {error}") from None


def load_checkpoint(model: models.Network, checkpoint: Path) -> dict[str, Any]:
    """Loads the weights of a checkpoint of this project: their mean over the steps, if the run kept one.

    Returns:
        What the checkpoint holds.

    Raises:
        CheckpointError: it cannot be read, or does not fit the network.
    """
    contents = read_checkpoint(checkpoint)
    load_weights(model, weights(contents, checkpoint), checkpoint)
    return contents


def load_initial_weights(model: models.Network, config: Config, checkpoint: Path | None) -> list[str]:
    """Loads the weights that a training starts from.

    Args:
        model: takes the weights.
        config: names files of weights from elsewhere.
        checkpoint: of this project; it has priority.

    Returns:
        A table for each file of weights from elsewhere, or for a checkpoint of another variant of the network.

    Raises:
        ConfigError: a file does not exist.
        CheckpointError: a file cannot be read, or does not fit the network or the classes.
    """
    if checkpoint is not None:
        for key in WEIGHT_FILES:
            if getattr(config.network, key):
                log.warning(f"network.{key} has no effect: the weights are those of --checkpoint {checkpoint}")
        contents = read_checkpoint(checkpoint)
        check_same_classes(class_names(config), contents, checkpoint)
        return _load_variant(model, weights(contents, checkpoint), checkpoint)
    tables = []
    for key, load in (
        ("imagenet_weights", models.load_imagenet_state_dict),
        ("release_weights", models.load_release_state_dict),
        ("pretrained_model", partial(models.load_pretrained, classes=class_names(config))),
    ):
        if file := getattr(config.network, key):
            path = checkpoint_file(Path(file))
            if not path.is_file():
                raise ConfigError(f"network.{key}: there is no file {file}")
            try:
                report = load(model, read_weight_file(path))
            except ValueError as error:
                raise CheckpointError(f"{file}: {error}") from None
            tables.append(f"{file}: {report.table()}")
    return tables


def _load_variant(model: models.Network, state: dict[str, torch.Tensor], checkpoint: Path) -> list[str]:
    """Loads the weights of the same network, or of another variant of it; of the latter returns a table."""
    try:
        load_weights(model, state, checkpoint)
    except CheckpointError:
        try:
            report = models.load_variant(model, state)
        except ValueError:
            report = None
        if report is None:
            raise  # what keeps the weights from being loaded as they are, and the way out
        return [f"{checkpoint} is of another variant of the network: {report.table()}"]
    return []


def place_network(model: models.Network, config: Config, process: Process, *, trains: bool) -> None:
    """Brings the network to its device in the form in which it is computed, in place.

    On the CPU, PyTorch gets the number of threads for it (`engine.threads`).

    Raises:
        UserError: the configuration asks for several processes, or for GPUs, that there are not.
    """
    sharded = trains and config.execution.strategy == "fsdp"
    contiguous = sharded or not config.execution.channels_last  # FSDP shards contiguous weights
    model.to(process.device).to(memory_format=torch.contiguous_format if contiguous else torch.channels_last)
    if trains and config.optimization.batch_norm == "sync":
        synchronise_batch_norm(model, process)
    if sharded:
        shard_fsdp(model, model.blocks(), process)
    if config.execution.compile:
        model.compile()
    if process.device.type == "cpu":
        size = config.transform.crop_size if trains else config.evaluation.eva_crop_size
        frames = config.dataset.num_segments * config.dataset.clip_length
        torch.set_num_threads(choose_threads(model, (frames, size, size)))


def build_dataset(config: Config, *, train: bool) -> ClipDataset:
    """The training or the validation videos of a configuration.

    Raises:
        ConfigError: a list or a folder is missing.
        DataError: the list cannot be read.
    """
    data = config.dataset
    key, list_file = ("list_file", data.list_file) if train else ("eva_list_file", data.eva_list_file)
    if not list_file:
        raise ConfigError(f"dataset.{key} must name a list file")
    root_key = "root_path" if train or not data.eva_root_path else "eva_root_path"
    root = getattr(data, root_key)
    if not Path(list_file).is_file():
        raise ConfigError(f"dataset.{key}: there is no file {list_file}")
    if not Path(root).is_dir() and not (data.format == "SHARDS" and is_url(root)):
        raise ConfigError(f"dataset.{root_key}: there is no folder {root}")
    return ClipDataset(
        list_file,
        root,
        transform=_train_transform(config) if train else _test_transforms(config),
        train=train,
        num_clips=1 if train else config.evaluation.eva_num_clips,
        num_crops=1 if train else config.evaluation.eva_num_crop,
        seed=config.seed,
        num_classes=data.num_classes,
        num_segments=data.num_segments,
        clip_length=data.clip_length,
        num_steps=data.num_steps,
        time_crop=config.transform.time_crop,
        format=data.format,
        reader_options=ReaderOptions(**data.model_dump(include={field.name for field in fields(ReaderOptions)})),
        on_bad_sample=data.on_bad_sample,
        max_bad_fraction=data.max_bad_fraction,
    )


def decoded_by(config: Config) -> str:
    """A line about what decodes the videos of a configuration; empty if it has frames. Raises DataError if nothing."""
    data = config.dataset
    what = {"VIDEO": "videos", "SHARDS": "videos in shards, where these hold no frames"}.get(data.format)
    return f"{what}: decoded by {describe_decoder(data.decoder, data.decoder_device)}" if what else ""


def _train_transform(config: Config) -> Transform:
    transform = config.transform
    augment = transform.rand_augment
    return train_transform(
        transform.crop_size,
        color_jitter=transform.color_jitter,
        rand_augment=(augment.n, augment.m) if augment else None,
        flip=transform.horizontal_flip,
        scale=transform.scale,
        short_side=transform.short_side,
        erasing=transform.random_erasing,
    )


def _test_transforms(config: Config) -> list[Transform]:
    crops = config.evaluation.eva_num_crop
    return [test_transform(config.evaluation.eva_crop_size, crop, crops) for crop in range(crops)]


def build_batches(
    dataset: ClipDataset, sampler: Sampler, batch_size: int, config: Config, process: Process
) -> DevicePrefetcher:
    """Batches of a data set on the device of this process, as the network takes them."""
    data = config.dataset
    on_gpu = data.format in ("VIDEO", "SHARDS") and data.decoder_device == "cuda"
    loader = build_loader(
        dataset,
        sampler,
        batch_size,
        workers=data.num_workers,
        device=process.device,
        start_worker=worker_init,
        start_method="spawn" if on_gpu else None,  # a forked process cannot use the GPU of its parent
    )
    return DevicePrefetcher(loader, process.device, normalise)


def build_validator(config: Config, process: Process, signals: StopSignals) -> Validator:
    """The validation of a configuration.

    Raises:
        ConfigError, DataError: see `build_dataset`.
    """
    data = build_dataset(config, train=False)
    check_equal({"the index of the validation shards": data.index_digest})
    sampler = DistributedVideoSampler(range(len(data.videos)), data.views, process, data.shards)
    batches = build_batches(data, sampler, config.evaluation.batch_size, config, process)
    return Validator(data, sampler, batches, config, process, signals)
