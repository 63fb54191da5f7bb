"""Trains and validates a SIFA network as a settings file says.

python -m torch.distributed.launch --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
torchrun --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
python train_val_3d.py --config_file=settings/NAME.yml
"""

import argparse
import logging
import sys
from functools import partial
from pathlib import Path

import torch

from datasets.annotations import DataError
from datasets.mixing import MIXING_KEYS, Mixing, Repeated
from engine.build import build_dataset, build_loader, build_network, class_names, load_initial_weights
from engine.checkpoint import Training, random_state
from engine.config import ConfigError, load_config
from engine.distributed import Process, TrainSampler, VideoShare, average_buffers, gather, is_main, start, stop, wrap
from engine.errors import UserError
from engine.loops import evaluate, train_epoch
from engine.optim import build_optimizer, build_scheduler, freeze
from engine.record import EpochClock, Record
from engine.schema import Config

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


def checkpoint_to_resume(args: argparse.Namespace, config: Config) -> Path | None:
    last = Path(config.output_dir) / "checkpoints/last.pth"
    if args.resume == "auto":
        return last if last.is_file() else None
    return Path(args.resume) if args.resume else None


def run(args: argparse.Namespace, config: Config, process: Process) -> None:
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    model = build_network(config)
    val_set = build_dataset(config, train=False)
    classes = class_names(config)
    resume = checkpoint_to_resume(args, config)
    trained_epochs, reports = (0, []) if resume else load_initial_weights(model, config, args.checkpoint)
    model.to(process.device)

    record = Record(config, process, trains=not args.eval)
    for report in reports:
        log.info(report)
    share = VideoShare(len(val_set.videos), val_set.views, process)
    val_loader = build_loader(val_set, share, config.evaluation.batch_size, config, process)

    def validate(epoch: int, split: str) -> None:
        metrics = evaluate(
            model, val_loader, process, videos=len(val_set.videos), views=val_set.views, report=record.views_done
        )
        record.metrics(epoch, split, metrics)
        log.info(metrics.line(val_set.num_clips, val_set.num_crops))

    if args.eval:
        validate(trained_epochs, "eval")
        return

    settings = config.optimization
    train_set = build_dataset(config, train=True)
    sampler = TrainSampler(
        len(train_set), process, batch_size=settings.batch_size, iter_size=settings.iter_size, seed=config.seed
    )
    if sampler.steps == 0:
        raise ConfigError(
            f"{config.dataset.list_file} has {len(train_set)} videos, fewer than one step takes: {process.world} "
            f"processes x optimization.batch_size={settings.batch_size} x iter_size={settings.iter_size}"
        )
    mixing = Mixing(config.dataset.num_classes, config.seed, **config.transform.model_dump(include=MIXING_KEYS))
    repeated = Repeated(sampler, config.transform.repeated_augmentation)
    loader = build_loader(train_set, repeated, settings.batch_size, config, process)
    optimizer = build_optimizer(model, settings)
    training = Training(model, optimizer, build_scheduler(optimizer, settings, len(loader)), len(loader))
    torch.manual_seed(config.seed + process.rank)  # dropout differs between processes
    if resume:
        training.resume(resume, process)
        log.info(f"resumed after epoch {training.epoch}")
    elif args.resume:
        log.info(f"no checkpoint in {record.checkpoints}: training starts anew")
    log.info(
        f"{config.network.net_name}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, on "
        f"{process.world} x {process.device.type}; {len(train_set)} training and {len(val_set.videos)} validation "
        f"videos of {config.dataset.num_classes} classes; writing {record.folder}"
    )

    wrapped = wrap(model, process)
    clock = EpochClock(training.epoch, settings.epochs)
    while training.epoch < settings.epochs:
        if freeze(model, settings, training.epoch):
            wrapped = wrap(model, process)
        sampler.epoch = training.epoch
        clock.start()
        trained = train_epoch(
            wrapped,
            loader,
            optimizer,
            training.scheduler,
            settings,
            process,
            print_freq=config.logging.print_freq,
            mix=partial(mixing.batch, training.epoch, process.rank) if mixing.does_something else None,
            report=lambda progress: log.info(f"epoch {training.epoch + 1}/{settings.epochs}  {progress}"),
        )
        average_buffers(model)
        training.epoch += 1
        clips_per_second, left = clock.stop(training.epoch, trained.videos)
        learning_rate = optimizer.param_groups[0]["lr"]
        log.info(
            f"epoch {training.epoch}/{settings.epochs}  loss {trained.loss:.4f}  lr {learning_rate:.2e}  "
            f"{clips_per_second:.1f} clips/s  left {left}"
        )
        record.metrics(training.epoch, "train", trained, learning_rate=learning_rate, clips_per_second=clips_per_second)
        states = gather(random_state())  # of all processes, so each takes part
        record.checkpoint(
            training.epoch, {**training.contents(states), "config": config.model_dump(), "classes": classes}
        )
        if training.epoch % config.evaluation.eva_inter_freq == 0 or training.epoch == settings.epochs:
            validate(training.epoch, "val")


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    try:
        config = load_config(args.config_file, [change for group in args.set for change in group])
        process = start(args.local_rank)
        run(args, config, process)
    except (UserError, DataError) as error:
        # A mistake in configuration or checkpoint is every process's, and one says it; a bad frame is met by one alone.
        if is_main() or isinstance(error, DataError):
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
