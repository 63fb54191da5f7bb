"""Trains, validates and tests a SIFA network as a settings file says.

python -m torch.distributed.launch --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
torchrun --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
python train_val_3d.py --config_file=settings/NAME.yml
"""

import argparse
import errno
import logging
import os
import random
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import models
from datasets.annotations import DataError
from datasets.clips import ClipDataset
from datasets.mixing import MIXING_KEYS, Mixing, Repeated
from engine.averaging import WeightAverage, precise_batch_norm
from engine.build import build_dataset, build_loader, build_network, class_names, end_workers, load_initial_weights
from engine.checkpoint import CheckpointError, entry, fingerprint, newest_checkpoint, read_checkpoint, save_checkpoint
from engine.config import ConfigError, load_config
from engine.distributed import (
    Process,
    Rest,
    TrainSampler,
    any_process,
    average_buffers,
    gather,
    is_main,
    lost_processes,
    restarted,
    shard,
    start,
    stop,
    synchronise_batch_norm,
    wrap,
)
from engine.errors import OneProcessError, UserError
from engine.feed import Feed
from engine.files import digest
from engine.loops import AMP, Diverged, autocast, train_epoch
from engine.optim import build_optimizer, build_scheduler, freeze, scaled_to_step
from engine.record import EpochClock, Record
from engine.run_folder import CHECKPOINTS, held, set_aside
from engine.schema import Config, Optimization
from engine.stopping import Stopped, StopSignals
from engine.training import Training
from engine.validation import Validation

log = logging.getLogger("sifa")

Saved = tuple[Path, dict[str, Any]]  # a checkpoint and what was read from it


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    parser.add_argument(
        "--set", nargs="+", action="append", default=[], metavar="section.key=value", help="changes keys; repeatable"
    )
    parser.add_argument("--eval", action="store_true", help="only validate, with the weights of --checkpoint")
    parser.add_argument("--test", action="store_true", help="as --eval, and write scores.npz; goes on if it was killed")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint to validate, or whose weights training starts from")
    parser.add_argument("--resume", metavar="auto|PATH", help="go on from a checkpoint; auto: from output_dir, if any")
    parser.add_argument("--seed", type=int, help="short for --set seed=N")
    parser.add_argument("--deterministic", action="store_true", help="short for --set deterministic=true")
    parser.add_argument("--local-rank", "--local_rank", type=int, help="passed by torch.distributed.launch")
    args = parser.parse_args(argv)
    if (args.eval or args.test) and args.checkpoint is None:
        parser.error("--eval and --test need --checkpoint PATH")
    if args.resume and (args.eval or args.test or args.checkpoint):
        parser.error("--resume goes with none of --eval, --test and --checkpoint")
    return args


@dataclass(frozen=True)
class Run:
    """What every part of a run needs to know."""

    config: Config
    process: Process
    signals: StopSignals
    model: models.Network
    classes: list[str]
    validation: Validation
    record: Record


@dataclass(frozen=True)
class Work:
    """What a training goes through: the clips in their order, and the state they change."""

    settings: Optimization  # with the learning rate of this number of processes
    data: ClipDataset
    sampler: TrainSampler
    rest: Rest
    loader: DataLoader
    mixing: Mixing
    training: Training
    list_digest: str  # of the training list


def run(args: argparse.Namespace, config: Config, process: Process, signals: StopSignals) -> None:
    set_random(config)
    model = build_network(config)
    validation = Validation(config, process, signals)
    classes = class_names(config)
    trains, replaced = not (args.eval or args.test), any_process(restarted())
    saved, reports = checkpoint_to_resume(args, config, replaced) if trains else (None, [])
    trained_epochs = 0
    if saved is None:
        trained_epochs, reports = load_initial_weights(model, config, args.checkpoint)
    prepare(model, config, process, trains)
    work = begin(model, config, process, saved) if trains else None
    # The folder stays as it was until all have read what they go on from, and what the settings name is there.
    folder = Path(config.output_dir)
    with held(folder, process) if trains else nullcontext():
        if trains and process.is_main and not replaced and args.resume != "auto":
            reports.append(set_aside(folder, saved and saved[0]))
        record = Record(config, process, classes, trains=trains)
        for report in filter(None, reports):
            log.info(report)
        try:
            if work is not None:
                parts = Run(config, process, signals, model, classes, validation, record)
                train(parts, work, saved, args.resume is not None)
            elif args.test:
                validation.test(model, record, classes, trained_epochs, {"checkpoint": fingerprint(args.checkpoint)})
            else:
                validation.metrics(model, record, trained_epochs, "eval")
        finally:
            record.close()


def prepare(model: models.Network, config: Config, process: Process, trains: bool) -> None:
    """Puts the network on its device, in the form that it is computed in."""
    sharded = trains and config.execution.strategy == "fsdp"
    contiguous = sharded or not config.execution.channels_last  # FSDP's shares are of contiguous weights
    model.to(process.device).to(memory_format=torch.contiguous_format if contiguous else torch.channels_last)
    if trains and config.optimization.batch_norm == "sync":
        synchronise_batch_norm(model, process)
    if sharded:
        shard(model, process)
    if config.execution.compile:
        model.compile()


def set_random(config: Config) -> None:
    """Seeds, and algorithms that always give the same bits if they are asked for."""
    random.seed(config.seed)
    np.random.seed(config.seed)
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for


def checkpoint_to_resume(args: argparse.Namespace, config: Config, replaced: bool) -> tuple[Saved | None, list[str]]:
    """The checkpoint that a training goes on from, and what there is to say about others.

    Where torchrun replaced lost processes, it is the newest that they saved; whatever else was there, set_aside moved.
    """
    saved: Saved | None = None
    reports: list[str] = []
    if replaced or args.resume == "auto":
        found = newest_checkpoint(Path(config.output_dir) / CHECKPOINTS)
        if found:
            saved, reports = found[:2], found[2]
    if saved is None and args.resume not in (None, "auto"):
        saved = Path(args.resume), read_checkpoint(Path(args.resume))
    places = gather(saved and tuple(saved[1].get(name) for name in ("epoch", "iteration")))
    if any(place != places[0] for place in places):
        raise CheckpointError(f"the processes find different checkpoints in {config.output_dir}: they must share it")
    return saved, reports


def begin(model: models.Network, config: Config, process: Process, saved: Saved | None) -> Work:
    """All that a training needs, in the state of the checkpoint that it goes on from.

    Raises:
        UserError: the data, the settings or the checkpoint do not go together.
    """
    settings = scaled_to_step(config.optimization, process.world)
    data = build_dataset(config, train=True)
    sampler = TrainSampler(
        len(data), process, batch_size=settings.batch_size, iter_size=settings.iter_size, seed=config.seed
    )
    if sampler.steps == 0:
        raise ConfigError(
            f"{config.dataset.list_file} has {len(data)} videos, fewer than one step takes: {process.world} "
            f"processes x optimization.batch_size={settings.batch_size} x iter_size={settings.iter_size}"
        )
    mixing = Mixing(config.dataset.num_classes, config.seed, **config.transform.model_dump(include=MIXING_KEYS))
    rest = Rest(Repeated(sampler, config.transform.repeated_augmentation))
    loader = build_loader(data, rest, settings.batch_size, config, process)
    optimizer = build_optimizer(model, settings)
    training = Training(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, settings, len(loader)),
        scaler=torch.amp.GradScaler(process.device.type, enabled=config.execution.amp == "fp16"),
        average=WeightAverage(model, settings.ema_decay) if settings.ema_decay else None,
        iterations_per_epoch=len(loader),
        device=process.device,
    )
    torch.manual_seed(config.seed + process.rank)  # dropout differs between processes
    list_digest = digest(config.dataset.list_file)[:16]
    if saved:
        refuse_another_training(saved, config, list_digest)
        training.resume(*saved, process)
    freeze(model, settings, training.epoch)
    return Work(settings, data, sampler, rest, loader, mixing, training, list_digest)


def train(run: Run, work: Work, saved: Saved | None, resumes: bool) -> None:
    config, process, record = run.config, run.process, run.record
    settings, sampler, rest, training, mixing = work.settings, work.sampler, work.rest, work.training, work.mixing
    if saved:
        within = f" and {training.iteration} iterations" if training.iteration else ""
        log.info(f"resumed from {saved[0]} after epoch {training.epoch}{within}")
        if changed := changes_since(saved[1], config, work.list_digest):
            log.warning(
                f"other than before: {', '.join(changed)}; learning rate, momentum and decay stay the checkpoint's"
            )
    elif resumes:
        log.info(f"no checkpoint in {record.checkpoints}: training starts anew")
    # What rank 0 finds counts: the others may see an older state of the file.
    validated = gather(record.rewind(training.epoch))[0]
    log.info(
        f"{config.network.net_name}, {sum(p.numel() for p in run.model.parameters()) / 1e6:.2f} M parameters, on "
        f"{process.world} x {process.device.type}; {len(work.data)} training and {len(run.validation.data.videos)} "
        f"validation videos of {config.dataset.num_classes} classes; {sampler.step * process.world} clips a step, "
        f"learning rate {settings.base_learning_rate:.3g}; writing {record.folder}"
    )
    if not validated and training.epoch and not training.iteration:
        validate_if_due(run, training)  # it was killed before it could
    if training.epoch >= settings.epochs:
        log.info(f"all {settings.epochs} epochs are done")

    network = wrap(run.model, process)
    clock = EpochClock(training.iterations / training.iterations_per_epoch, settings.epochs)
    while training.epoch < settings.epochs:
        if freeze(run.model, settings, training.epoch):
            network = wrap(run.model, process)
        sampler.epoch, rest.done = training.epoch, training.iteration * settings.batch_size
        clock.start()
        first = training.iterations
        title = f"epoch {training.epoch + 1}/{settings.epochs}"
        with record.bar(title, training.iterations_per_epoch, training.iteration):
            try:
                trained = train_epoch(
                    training,
                    network,
                    work.loader,
                    config,
                    process,
                    mix=partial(mixing.batch, training.epoch, process.rank) if mixing.does_something else None,
                    report=lambda progress: record.progress(training.epoch + 1, training.iterations, progress),
                    advance=record.advance,
                    save=lambda: save(run, work),
                    asked_to_stop=run.signals.anywhere,
                )
            except Diverged as error:
                if error.here:
                    keep_batch(run, work.data, rest.sampler, training.epoch, error.iteration)
                raise
        clips = (training.iterations - first) * settings.batch_size * process.world
        clips_per_second, left = clock.stop(training.epoch + 1, clips)
        finish_epoch(run, training, work.data)
        learning_rate = training.optimizer.param_groups[0]["lr"]
        log.info(
            f"epoch {training.epoch}/{settings.epochs}  loss {trained.loss:.4f}  lr {learning_rate:.2e}  "
            f"{clips_per_second:.1f} clips/s  left {left}"
        )
        record.metrics(training.epoch, "train", trained, learning_rate=learning_rate, clips_per_second=clips_per_second)
        save(run, work)
        validate_if_due(run, training)
        if training.epoch < settings.epochs and run.signals.anywhere():
            raise Stopped


def refuse_another_training(saved: Saved, config: Config, list_digest: str) -> None:
    """Raises CheckpointError where a checkpoint's optimiser, or the epoch that it is in the middle of, is another."""
    path, contents = saved
    was_config = entry(contents, "config", path)
    before, now = was_config["optimization"], config.optimization.model_dump()
    for key in ("optimizer", "layer_multipliers", "decay_all"):  # they say which parameters share a state
        if key in before and before[key] != now[key]:
            raise CheckpointError(
                f"checkpoint {path} is of a run with optimization.{key} {before[key]}, this one has {now[key]}: resume "
                "with the same, or start another training from it with --checkpoint"
            )
    if not contents.get("iteration"):
        return
    for what, was, is_now in (
        ("seed", was_config["seed"], config.seed),
        ("content of dataset.list_file", contents.get("list"), list_digest),
    ):
        if was not in (None, is_now):
            raise CheckpointError(
                f"checkpoint {path} is of the middle of an epoch, whose order another {what} changes ({was}, now "
                f"{is_now}): resume with the same"
            )


def changes_since(saved: dict[str, Any], config: Config, list_digest: str) -> list[str]:
    """What makes a training another one than that of a checkpoint: `key old -> new`."""
    before, now = saved["config"], config.model_dump()
    sections = ("dataset", "transform", "network", "SIFA", "optimization", "execution")
    pairs = [(key, before.get(key), now[key]) for key in ("seed", "deterministic")]
    pairs += [("content of dataset.list_file", saved["list"], list_digest)] if "list" in saved else []
    pairs += [
        (f"{section}.{key}", before.get(section, {}).get(key), value)
        for section in sections
        for key, value in now[section].items()
        if key not in ("num_workers", "pretrained_model", "timeout")
    ]
    return [f"{name} {was} -> {is_now}" for name, was, is_now in pairs if was != is_now]


def is_due(run: Run, epoch: int) -> bool:
    return epoch % run.config.evaluation.eva_inter_freq == 0 or epoch == run.config.optimization.epochs


def finish_epoch(run: Run, training: Training, data: ClipDataset) -> None:
    """Counts the epoch, and makes BatchNorm's statistics those that are validated and saved, in all processes alike."""
    config, batches = run.config, run.config.optimization.precise_bn
    training.epoch += 1
    training.start_epoch()
    if batches and is_due(run, training.epoch):
        # Clips of the epoch to come, drawn as it will draw them.
        sampler = TrainSampler(
            len(data), run.process, batch_size=config.optimization.batch_size, iter_size=1, seed=config.seed
        )
        sampler.epoch = training.epoch
        loader = build_loader(data, sampler, config.optimization.batch_size, config, run.process)
        with training.averaged(), autocast(run.process.device, AMP[config.execution.amp]):
            precise_batch_norm(run.model, (clip for clip, *_ in Feed(loader, run.process.device)), batches)
    average_buffers(run.model)
    if training.average:
        with training.averaged():
            average_buffers(run.model)


def save(run: Run, work: Work) -> None:
    training = work.training
    entries = training.contents()  # of all processes, so each takes part
    run.record.checkpoint(
        {**entries, "config": run.config.model_dump(), "classes": run.classes, "list": work.list_digest},
        epoch=None if training.iteration else training.epoch,
    )


def validate_if_due(run: Run, training: Training) -> None:
    if is_due(run, training.epoch):
        with training.averaged():
            run.validation.metrics(run.model, run.record, training.epoch, "val")


def keep_batch(run: Run, data: ClipDataset, sampler: Iterable, epoch: int, iteration: int) -> None:
    """Saves the batch of an iteration as it was drawn, for whoever looks into why its loss was not finite."""
    size = run.config.optimization.batch_size
    keys = list(islice(sampler, (iteration - 1) * size, iteration * size))
    clips, labels, indices = zip(*(data[key] for key in keys), strict=True)
    path = run.record.folder / f"diverged_rank{run.process.rank}.pth"
    videos = [data.videos[index].path for index in indices]
    save_checkpoint(
        path,
        {"clips": torch.stack(clips), "labels": list(labels), "videos": videos, "epoch": epoch, "iteration": iteration},
    )
    log.warning(f"the batch of iteration {iteration} is in {path}: {', '.join(videos)}")


# ---- How it ends ----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Returns 0; 2 for what the user can mend, said in one line; 1 where a process was lost; 128 + n after signal n."""
    args = parse_arguments(argv)
    with StopSignals() as signals:
        try:
            config = load_config(args.config_file, config_changes(args))
            run(args, config, start(args.local_rank, timedelta(seconds=config.execution.timeout)), signals)
        except (UserError, DataError) as error:
            # A mistake in configuration or checkpoint is every process's, and one says it; a bad frame is met by one.
            if is_main() or isinstance(error, (DataError, OneProcessError)):
                say(str(error))
            return 2
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            say(f"the disk is full: {error}. What was saved before is whole")
            return 2
        except RuntimeError as error:
            lost = lost_processes(error)
            if not lost:
                raise
            say(f"rank {os.environ['RANK']} has lost {', '.join(lost)}: {str(error).rpartition('] ')[2]}")
            return 1
        except Stopped:
            if signals.received is None:
                return 1  # another process was asked to
            if is_main():
                scores = "what was scored before is kept" if args.test else "nothing to keep" if args.eval else "saved"
                say(f"stopped by {signals.received.name}, {scores}")
            return 128 + signals.received
        finally:
            end_workers()
    stop()
    return 0


def config_changes(args: argparse.Namespace) -> list[str]:
    changes = [change for group in args.set for change in group]
    if args.seed is not None:
        changes.append(f"seed={args.seed}")
    if args.deterministic:
        changes.append("deterministic=true")
    return changes


def say(text: str) -> None:
    print(f"error: {' '.join(text.split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
