"""What a run leaves behind: figures that can be taken back, a bar on a terminal, Weights & Biases where asked for."""

import dataclasses
import io
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.errors import UserError
from engine.logger import EpochClock, RunLogger
from engine.meters import Progress
from engine.metrics import Metrics
from engine.schema import Config, Logging
from tests.engine.runs import ALONE

METRICS = Metrics(videos=10, loss=1.5, top1=20.0, top3=30.0, top5=40.0)
PROGRESS = Progress(3, 9, 1.5, 20.0, 40.0, 0.1, 2.0, 12.0, 0.25, 1.5)


def record(folder: Path, **options: Any) -> RunLogger:
    return RunLogger(Config(output_dir=str(folder), logging=Logging(**options)), ALONE, trains=True)


def lines(folder: Path) -> list[tuple[int, str]]:
    text = (folder / "metrics.jsonl").read_text()
    return [(values["epoch"], values["split"]) for values in map(json.loads, text.splitlines())]


def test_a_run_that_goes_on_takes_back_what_was_not_saved(tmp_path: Path) -> None:
    run = record(tmp_path)
    assert not run.rewind(1, 9)
    for epoch in (1, 2, 3):
        run.metrics(epoch, "train", METRICS)
        if epoch != 2:
            run.metrics(epoch, "val", METRICS)
    run.metrics(9, "eval", METRICS)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4, "spl')  # killed here
    assert not run.rewind(2, 9), "the second epoch was not validated"
    assert lines(tmp_path) == [(1, "train"), (1, "val"), (2, "train"), (9, "eval")]
    assert run.rewind(1, 9)
    assert lines(tmp_path) == [(1, "train"), (1, "val"), (9, "eval")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_and_lines_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, has_bar in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stdout", stream)
        run = record(tmp_path)
        with run.bar("epoch 1/2", total=9, done=2):
            run.advance(7)
            run.progress(1, 3, PROGRESS)
        written = stream.getvalue()
        assert "epoch 1/64  3/9  loss 1.5000  lr 1.00e-01  12.0 clips/s  waited 25 %  1.5 GiB\n" in written
        assert ("epoch 1/2" in written and "9/9" in written) == has_bar
    logging.getLogger("sifa").handlers.clear()


def test_curves_and_a_log_that_cannot_be_written_end_no_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with record(tmp_path) as run:
        shutil.rmtree(tmp_path / "tensorboard")
        for epoch in (1, 2):
            run.progress(epoch, 3 * epoch, PROGRESS)
            run.metrics(epoch, "val", METRICS)
    assert lines(tmp_path) == [(1, "val"), (2, "val")]
    output, errors = capfd.readouterr()
    said = output.splitlines()
    assert errors == ""
    assert said.count(f"{tmp_path}/log.txt misses lines from here on: No space left on device") == 1
    assert sum("TensorBoard gets no more of this run, which goes on without it: " in line for line in said) == 1
    assert sum(line.startswith("epoch ") for line in said) == 2
    logging.getLogger("sifa").handlers.clear()


def test_a_console_whose_reader_has_gone_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patched, os.fdopen(writer, "w") as stdout, record(tmp_path) as run:
        patched.setattr(sys, "stdout", stdout)
        for epoch in (1, 2):
            run.progress(epoch, epoch, PROGRESS)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 2
    logging.getLogger("sifa").handlers.clear()


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[dict[str, Any]] = []
    started: dict[str, Any] = {}
    service = SimpleNamespace(log=logged.append, define_metric=lambda *names, **axis: None, finish=lambda: None)
    fake = SimpleNamespace(init=lambda **options: started.update(options) or service)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    run = record(tmp_path, wandb="my project")
    run.progress(1, 3, PROGRESS)
    run.metrics(1, "val", METRICS)
    assert started["project"] == "my project"
    assert started["config"]["optimization"]["epochs"] == 64
    first = started["id"]
    with record(tmp_path, wandb="my project"):
        pass
    assert started["id"] == first, "a run that goes on is the same run there"
    assert (logged[0]["iteration"], logged[0]["step/gradient_norm"]) == (3, 2.0)
    assert (logged[1]["epoch"], logged[1]["val/top1"]) == (1, 20.0)

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        record(tmp_path, wandb="my project")
    record(tmp_path)  # not asked for, not missed


def test_the_time_left_of_a_run_that_went_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("engine.logger.time.monotonic", lambda: now)
    clock = EpochClock(1.5, 4)
    clock.start()
    now = 110.0
    speed, left = clock.stop(2, clips=50)
    assert (speed, left.total_seconds()) == (5.0, 40.0), "half an epoch took ten seconds, two are left"


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    def step(iteration: int) -> Progress:
        return dataclasses.replace(PROGRESS, loss=float(iteration))

    with record(tmp_path) as run:
        for epoch in (1, 2):
            for iteration in (9 * epoch - 8, 9 * epoch):
                run.progress(epoch, iteration, step(iteration))
            run.metrics(epoch, "val", METRICS)
    # TensorBoard reads files in the order of their names, which end in a number that a process counts up: "10" would
    # come before "9". A resumed run is another process, whose files have a later time in front.
    for file in (tmp_path / "tensorboard").rglob("events.out.*"):
        file.rename(file.with_name("events.out.tfevents.1"))
    with record(tmp_path) as run:  # killed after the second validation, before it was saved
        run.rewind(1, 9)
        run.progress(2, 10, step(100))
        run.metrics(2, "val", dataclasses.replace(METRICS, loss=3.0))
    for folder, tag, expected in (
        ("tensorboard", "val/loss", [(1, 1.5), (2, 3.0)]),
        ("tensorboard/steps", "step/loss", [(1, 1.0), (9, 9.0), (10, 100.0)]),
    ):
        events = EventAccumulator(str(tmp_path / folder))
        events.Reload()
        assert [(event.step, event.value) for event in events.Scalars(tag)] == expected
