"""Trains and validates a SIFA network as a settings file says.

python -m torch.distributed.launch --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
torchrun --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
python train_val_3d.py --config_file=settings/NAME.yml
"""

import argparse
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

import models
from datasets.annotations import DataError, read_classes
from datasets.clips import ClipDataset, worker_init
from datasets.transforms import test_transform, train_transform
from engine import checkpoint as ckpt
from engine.config import ConfigError, load_config
from engine.distributed import Process, TrainSampler, VideoShare, average_buffers, gather, start, stop, wrap
from engine.errors import UserError, one_line
from engine.loops import Progress, evaluate, train_epoch
from engine.metrics import Metrics
from engine.optim import build_optimizer, build_scheduler
from engine.record import Record
from engine.schema import Config
from models.sifa_resnet import SIFANet

log = logging.getLogger("sifa")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    parser.add_argument(
        "--set", nargs="+", action="append", default=[], metavar="section.key=value", help="changes keys; repeatable"
    )
    parser.add_argument("--eval", action="store_true", help="only validate, with the weights of --checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint to validate, or whose weights training starts from")
    parser.add_argument("--resume", metavar="auto|PATH", help="go on from a checkpoint; auto: from output_dir, if any")
    parser.add_argument("--local-rank", "--local_rank", type=int, help="passed by torch.distributed.launch")
    args = parser.parse_args(argv)
    if args.eval and args.checkpoint is None:
        parser.error("--eval needs --checkpoint PATH")
    if args.resume and (args.eval or args.checkpoint):
        parser.error("--resume goes with neither --eval nor --checkpoint")
    return args


# ---- What a configuration describes ---------------------------------------------------------------------------------


def build_network(config: Config) -> SIFANet:
    network = config.network
    try:
        return models.build_model(
            network.net_name,
            num_classes=config.dataset.num_classes,
            clip_length=config.dataset.num_segments * config.dataset.clip_length,
            sifa_kernel=config.SIFA.sifa_kernel,
            offset_init=config.SIFA.offset_init,
            width=network.width,
            dropout_ratio=network.dropout_ratio,
            dual_head=network.dual_head,
        )
    except ValueError as error:
        raise ConfigError(f"network: {error}") from None


def load_initial_weights(model: SIFANet, config: Config, checkpoint: Path | None) -> int:
    """The weights that a training starts from, or that are validated: a checkpoint of ours, or from elsewhere.

    Returns the epochs that a checkpoint of ours was trained for, else 0.
    """
    if checkpoint is not None:
        contents = ckpt.read_checkpoint(checkpoint)
        ckpt.load_weights(model, ckpt.entry(contents, "model", checkpoint), checkpoint)
        return ckpt.entry(contents, "epoch", checkpoint)
    for file, load in (
        (config.network.imagenet_weights, models.load_imagenet_state_dict),
        (config.network.release_weights, models.load_release_state_dict),
    ):
        if file:
            contents = ckpt.read_checkpoint(Path(file))
            try:
                load(model, contents.get("model", contents.get("state_dict", contents)))
            except ValueError as error:
                raise ckpt.CheckpointError(f"{file}: {error}") from None
    return 0


def build_dataset(config: Config, *, train: bool) -> ClipDataset:
    data, transform, evaluation = config.dataset, config.transform, config.evaluation
    key, list_file = ("list_file", data.list_file) if train else ("eva_list_file", data.eva_list_file)
    if not list_file:
        raise ConfigError(f"dataset.{key} must name a list file")
    augment = transform.rand_augment
    crops = 1 if train else evaluation.eva_num_crop
    return ClipDataset(
        list_file,
        data.root_path if train else data.eva_root_path or data.root_path,
        num_classes=data.num_classes,
        num_segments=data.num_segments,
        clip_length=data.clip_length,
        num_steps=data.num_steps,
        transform=train_transform(
            transform.crop_size,
            color_jitter=transform.color_jitter,
            rand_augment=(augment.n, augment.m) if augment else None,
            flip=transform.horizontal_flip,
            scale=(transform.scale[0], transform.scale[1]),
        )
        if train
        else [test_transform(evaluation.eva_crop_size, crop, crops) for crop in range(crops)],
        train=train,
        num_clips=1 if train else evaluation.eva_num_clips,
        num_crops=crops,
        seed=config.seed,
        frame_template=data.frame_template,
        first_frame=data.first_frame,
    )


def build_loader(dataset: ClipDataset, sampler: Any, batch_size: int, config: Config, process: Process) -> DataLoader:
    workers = config.dataset.num_workers
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=process.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=worker_init,
    )


# ---- The run --------------------------------------------------------------------------------------------------------


def validate(model: nn.Module, loader: DataLoader, dataset: ClipDataset, process: Process) -> Metrics:
    shown = time.monotonic()

    def report(done: int, of: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            log.info(f"validation  {done}/{of} views")

    return evaluate(model, loader, process, videos=len(dataset.videos), views=dataset.views, report=report)


def run(args: argparse.Namespace, config: Config, process: Process) -> None:
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.deterministic)
    if config.deterministic:
        torch.backends.cudnn.benchmark = False
    settings = config.optimization
    model = build_network(config)
    val_set = build_dataset(config, train=False)
    val_share = VideoShare(len(val_set.videos), val_set.views, process)
    val_loader = build_loader(val_set, val_share, config.evaluation.batch_size, config, process)
    views = config.evaluation.eva_num_clips, config.evaluation.eva_num_crop
    classes = read_classes(config.dataset.classes_file) if config.dataset.classes_file else []
    if classes and len(classes) != config.dataset.num_classes:
        raise ConfigError(
            f"dataset.classes_file names {len(classes)} classes, num_classes={config.dataset.num_classes}"
        )

    last = Path(config.output_dir) / "checkpoints/last.pth"
    resume = last if args.resume == "auto" else Path(args.resume) if args.resume else None
    if args.resume == "auto" and not last.is_file():
        resume = None
    trained_epochs = load_initial_weights(model, config, args.checkpoint)
    record = Record(config, process, trains=not args.eval)
    model.to(process.device)
    if args.eval:
        metrics = validate(model, val_loader, val_set, process)
        record.metrics(trained_epochs, "eval", metrics)
        log.info(metrics.line(*views))
        return

    train_set = build_dataset(config, train=True)
    sampler = TrainSampler(
        len(train_set), process, batch_size=settings.batch_size, iter_size=settings.iter_size, seed=config.seed
    )
    if sampler.steps == 0:
        raise ConfigError(
            f"{config.dataset.list_file} has {len(train_set)} videos, fewer than one step takes: {process.world} "
            f"processes x optimization.batch_size={settings.batch_size} x iter_size={settings.iter_size}"
        )
    loader = build_loader(train_set, sampler, settings.batch_size, config, process)
    optimizer = build_optimizer(model, settings)
    scheduler = build_scheduler(optimizer, settings, len(loader))
    epoch = 0
    if resume is not None:
        saved = ckpt.read_checkpoint(resume)
        ckpt.load_weights(model, ckpt.entry(saved, "model", resume), resume)
        optimizer.load_state_dict(ckpt.entry(saved, "optimizer", resume))
        scheduler.load_state_dict(ckpt.entry(saved, "scheduler", resume))
        epoch = ckpt.entry(saved, "epoch", resume)
        states = ckpt.entry(saved, "random", resume)
        if process.rank < len(states):
            ckpt.set_random_state(states[process.rank])
        log.info(f"resumed after epoch {epoch} from {resume}")
    elif args.resume:
        log.info(f"nothing to resume in {record.folder}: training starts anew")
    else:
        torch.manual_seed(config.seed + process.rank)  # dropout differs between processes

    wrapped = wrap(model, process)
    parameters = sum(p.numel() for p in model.parameters())
    log.info(
        f"{config.network.net_name}, {parameters / 1e6:.2f} M parameters, on {process.world} x {process.device.type}; "
        f"{len(train_set)} training and {len(val_set.videos)} validation videos of {config.dataset.num_classes} "
        f"classes; writing {record.folder}"
    )

    began, first = time.monotonic(), epoch
    while epoch < settings.epochs:
        sampler.epoch = epoch

        def report(progress: Progress, epoch: int = epoch) -> None:
            log.info(
                f"epoch {epoch + 1}/{settings.epochs}  {progress.done}/{progress.of}  loss {progress.loss:.4f}  "
                f"lr {progress.learning_rate:.2e}  {progress.clips_per_second:.1f} clips/s"
            )

        started = time.monotonic()
        trained = train_epoch(
            wrapped,
            loader,
            optimizer,
            scheduler,
            settings,
            process,
            print_freq=config.logging.print_freq,
            report=report,
        )
        speed = trained.videos / (time.monotonic() - started)
        average_buffers(model)
        epoch += 1
        learning_rate = optimizer.param_groups[0]["lr"]
        record.metrics(epoch, "train", trained, learning_rate=learning_rate, clips_per_second=speed)
        random = gather(ckpt.random_state())  # a collective, so on every process
        record.checkpoint(
            epoch,
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
                "epoch": epoch,
                "random": random,
                "config": config.model_dump(),
                "classes": classes,
            },
        )
        left = (time.monotonic() - began) / (epoch - first) * (settings.epochs - epoch)
        log.info(
            f"epoch {epoch}/{settings.epochs}  loss {trained.loss:.4f}  lr {learning_rate:.2e}  {speed:.1f} clips/s  "
            f"left {timedelta(seconds=round(left))}"
        )
        if epoch % config.evaluation.eva_inter_freq == 0 or epoch == settings.epochs:
            metrics = validate(model, val_loader, val_set, process)
            record.metrics(epoch, "val", metrics)
            log.info(metrics.line(*views))


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    process = None
    try:
        config = load_config(args.config_file, [change for group in args.set for change in group])
        process = start(args.local_rank)
        run(args, config, process)
        return 0
    except (UserError, DataError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        stop()


if __name__ == "__main__":
    sys.exit(main())
