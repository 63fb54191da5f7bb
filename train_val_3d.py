"""Trains, validates and tests a SIFA network as a settings file says.

python -m torch.distributed.launch --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
torchrun --nproc_per_node=4 train_val_3d.py --config_file=settings/NAME.yml
python train_val_3d.py --config_file=settings/NAME.yml
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import nn

from common import cli
from engine.agreement import check_agreement
from engine.checkpoint import LAST, entry, fingerprint
from engine.config import load_config
from engine.distributed import Process, all_gather, any_rank, restarted, start
from engine.divergence import Diverged
from engine.eval_loop import Validator, validation_is_due
from engine.launch import run_to_the_end, seed_everything
from engine.logger import EpochClock, RunLogger
from engine.multi_view_test import run_test
from engine.optim import freeze, scaled_to_step
from engine.parallel import is_sharded, wrap_ddp
from engine.resume import check_same_training, find_checkpoint, log_resume
from engine.run_dir import CHECKPOINTS, archive_previous_run, lock_output_dir
from engine.schema import Config, Optimization
from engine.signals import Interrupted, StopSignals
from engine.state import TrainState
from engine.train_loop import finish_epoch, train_epoch
from sifa.build import build_network, build_validator, decoded_by, load_checkpoint, load_initial_weights, place_network
from sifa.classes import align_classes, check_same_classes, class_names
from sifa.pictures import record_validation_clip
from sifa.trained_settings import check_trained_settings
from sifa.training_data import TrainingData

log = logging.getLogger("sifa")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.parser("train_val_3d.py", __doc__)
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    cli.add_set_option(parser)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--eval", action="store_true", help="only validate, with the weights of --checkpoint")
    mode.add_argument("--test", action="store_true", help="as --eval, and write scores.npz; continues after a stop")
    mode.add_argument("--then_test", action="store_true", help="--test the last checkpoint after the training")
    parser.add_argument("--checkpoint", type=Path, help="of a run, to validate, or to start a training from")
    parser.add_argument("--resume", metavar="auto|PATH", help="resume a checkpoint; auto: the newest in output_dir")
    parser.add_argument("--seed", type=int, help="short for --set seed=N")
    parser.add_argument("--deterministic", action="store_true", help="short for --set deterministic=true")
    parser.add_argument("--local-rank", "--local_rank", type=int, help="passed by torch.distributed.launch")
    args = parser.parse_args(argv)
    if (args.eval or args.test) and args.checkpoint is None:
        parser.error("--eval and --test need --checkpoint PATH")
    if args.resume and (args.eval or args.test or args.checkpoint):
        parser.error("--resume goes with none of --eval, --test and --checkpoint")
    args.set += [f"seed={args.seed}"] * (args.seed is not None) + ["deterministic=true"] * args.deterministic
    return args


def run(args: argparse.Namespace, signals: StopSignals) -> None:
    """One process of a run, from the configuration to the last epoch."""
    config = load_config(args.config_file, args.set)
    process = start(args.local_rank, timedelta(seconds=config.execution.timeout))
    check_agreement(config, {f"--{name}": getattr(args, name) for name in ("eval", "test", "then_test", "resume")})
    seed_everything(config.seed, deterministic=config.deterministic)
    validator = build_validator(config, process, signals)
    if args.eval or args.test:
        evaluate(args, config, process, validator)
    else:
        train(args, config, process, signals, validator)
    if args.then_test:
        args.test, args.checkpoint = True, Path(config.output_dir) / CHECKPOINTS / LAST
        evaluate(args, config, process, validator)


def evaluate(args: argparse.Namespace, config: Config, process: Process, validator: Validator) -> None:
    model = build_network(config)
    contents = load_checkpoint(model, args.checkpoint)
    check_trained_settings(config, contents, args.checkpoint, {change.partition("=")[0] for change in args.set})
    epoch = entry(contents, "epoch", args.checkpoint)
    place_network(model, config, process, trains=False)
    with RunLogger(config, process, trains=False) as logger:
        if (report := decoded_by(config)) and not args.then_test:  # the training has said it
            log.info(report)
        classes = align_classes(validator.data, class_names(config), contents, args.checkpoint)
        if args.test:
            run_test(model, validator, logger, classes, epoch, fingerprint(args.checkpoint))
        else:
            validator.validate(model, logger, epoch, "eval")


def train(
    args: argparse.Namespace, config: Config, process: Process, signals: StopSignals, validator: Validator
) -> None:
    model = build_network(config)
    output_dir, classes, replaced = Path(config.output_dir), class_names(config), any_rank(restarted())
    saved, reports = find_checkpoint(args.resume, output_dir, replaced=replaced)
    if saved is None:
        reports = load_initial_weights(model, config, args.checkpoint)
    place_network(model, config, process, trains=True)
    data = TrainingData(config, process)
    settings = scaled_to_step(config.optimization, process.world_size)
    state = TrainState.new(model, settings, config.execution.amp, data.iterations_per_epoch, process.device)
    torch.manual_seed(config.seed + process.rank)  # dropout differs between processes
    if saved:
        check_same_training(saved, config, data.list_digest)
        check_same_classes(classes, saved.contents, saved.path)
        state.resume(*saved, process)
    freeze(model, settings, state.epoch)

    # Everything is read and checked: only now does output_dir change.
    with lock_output_dir(output_dir, process):
        if process.is_main and not replaced and args.resume != "auto":
            reports.append(archive_previous_run(output_dir, saved and saved.path))
        with RunLogger(config, process, trains=True) as logger:
            trainer = Trainer(config, process, signals, classes, data, state, validator, logger)
            for report in filter(None, [*reports, decoded_by(config)]):
                log.info(report)
            log_resume(saved, state, config, data.list_digest, asked=args.resume is not None)
            trainer.run(settings)


@dataclass(frozen=True)
class Trainer:
    """A training: its epochs, and what follows each of them."""

    config: Config
    process: Process
    signals: StopSignals
    classes: list[str]
    data: TrainingData
    state: TrainState
    validator: Validator
    logger: RunLogger

    def run(self, settings: Optimization) -> None:
        """Trains to the last epoch. `settings` have the learning rate for this number of processes."""
        state, logger = self.state, self.logger
        # What rank 0 finds counts: the other processes may see an older state of the file.
        validated = all_gather(logger.rewind(state.epoch, state.iterations))[0]
        log.info(self.data.summary(state.model, len(self.validator.data.videos), settings.base_learning_rate))
        if not validated and state.epoch and not state.iteration:
            self.validate_if_due()  # the run was killed before it could
        if state.epoch >= settings.epochs:
            log.info(f"all {settings.epochs} epochs are done")

        network = wrap_ddp(state.model, self.process)
        clock = EpochClock(state.iterations / state.iterations_per_epoch, settings.epochs)
        while state.epoch < settings.epochs:
            if freeze(state.model, settings, state.epoch):
                network = wrap_ddp(state.model, self.process)
            self.run_epoch(network, clock)
            self.save()
            self.validate_if_due()
            if state.epoch < settings.epochs and self.signals.on_any_rank():
                raise Interrupted

    def run_epoch(self, network: nn.Module, clock: EpochClock) -> None:
        """Trains what is left of the present epoch, and records its figures."""
        state, logger, first = self.state, self.logger, self.state.iterations
        clock.start()
        with logger.bar(f"epoch {state.epoch + 1}/{clock.epochs}", clock.epochs * state.iterations_per_epoch, first):
            try:
                metrics = train_epoch(
                    state,
                    network,
                    self.data.epoch(state.epoch, state.iteration),
                    self.config,
                    mix=self.data.mix(state.epoch),
                    report=lambda progress: logger.progress(state.epoch + 1, state.iterations, progress),
                    advance=logger.advance,
                    save=self.save,
                    asked_to_stop=self.signals.on_any_rank,
                )
            except Diverged as error:
                if error.here:
                    path = logger.folder / f"diverged_rank{self.process.rank}.pth"
                    self.data.save_batch(path, state.epoch, error.iteration)
                raise
        clips = (state.iterations - first) * self.data.batch_size * self.process.world_size
        rate, left = clock.stop(state.epoch + 1, clips)
        finish_epoch(state, self.config, self.data.clips)
        log.info(
            f"epoch {state.epoch}/{clock.epochs}  loss {metrics.loss:.4f}  lr {state.learning_rate:.2e}  "
            f"{rate:.1f} clips/s  left {left}"
        )
        logger.metrics(state.epoch, "train", metrics, learning_rate=state.learning_rate, clips_per_second=rate)

    def save(self) -> None:
        entries = self.state.checkpoint_entries()  # of all processes, so each takes part
        entries |= {"config": self.config.model_dump(), "classes": self.classes, "list": self.data.list_digest}
        entries["trained_on"] = self.data.description
        self.logger.checkpoint(entries, epoch=None if self.state.iteration else self.state.epoch)

    def validate_if_due(self) -> None:
        state = self.state
        if not validation_is_due(self.config, state.epoch):
            return
        with state.ema_applied():
            self.validator.validate(state.model, self.logger, state.epoch, "val")
            if self.config.logging.pictures and self.logger.writes and not is_sharded(state.model):
                record_validation_clip(self.logger.events, state.model, self.validator, self.classes, state.epoch)


def main(argv: list[str] | None = None) -> int:  # the exit code
    args = parse_arguments(argv)
    kept = "what was scored before is kept" if args.test else "nothing to keep" if args.eval else "saved"
    return run_to_the_end(partial(run, args), kept=kept)


if __name__ == "__main__":
    sys.exit(main())
