"""Benchmarks whose contestants take turns in processes of their own: who is asked when, and what the tables say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import bench_inference, bench_peers, turns, where_time_goes
from models import build_model


class FakeWorker:
    """Answers at once; each turn takes the time that its name says."""

    asked: list[tuple[str, Any]] = []  # noqa: RUF012
    built: list[tuple[str, Any]] = []  # noqa: RUF012  # with the last word of the command

    def __init__(self, module: str, folder: Path = turns.ROOT) -> None:
        self.name, self.words = folder.name, ()

    def ask(self, command: str, *words: Any) -> Any:
        self.asked.append((self.name, command))
        if command == "build":
            self.words = words
            self.built.append((self.name, words[-1]))
            return [2.0, 1.0] if words[0] in ("forward", "step") else 7.0
        if command == "parts":
            return dict.fromkeys((*where_time_goes.PARTS, where_time_goes.REST), 0.1)
        return 0.5 if self.name == "now" or "eager" in self.words else 1.0

    def close(self) -> None:
        pass


def test_turns_alternate_and_large_contestants_take_part_in_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "asked", [])
    workers: Any = {name: FakeWorker("", Path(name)) for name in ("one", "two")}
    times = turns.take_turns(workers, {"one": 3, "two": 1}, "turn")
    assert FakeWorker.asked == [("one", "turn"), ("two", "turn"), ("one", "turn"), ("one", "turn")]
    assert times == {"one": [1.0] * 3, "two": [1.0]}
    assert turns.ratio([1.0, 3.0, 8.0], [1.0, 2.0, 2.0, 9.0]) == 1.5


def test_every_operator_of_a_step_belongs_to_a_part() -> None:
    network = build_model("c2d_sifa_resnet50", num_classes=2, clip_length=8, width=2)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        network(torch.randn(1, 3, 8, 32, 32))[0].sum().backward()
    parts = {event.name: where_time_goes._part(event) for event in recorded.events()}
    assert {*parts.values()} >= {*where_time_goes.PARTS} - {where_time_goes.OPTIMIZER, "copies and zeros"}
    assert parts["sifa::inter_frame_attention"] == "SIFA's op"
    assert parts["aten::native_batch_norm_backward"] == "BatchNorm"
    caller = SimpleNamespace(name="aten::convolution_backward", cpu_parent=None)
    assert where_time_goes._part(SimpleNamespace(name="aten::copy_", cpu_parent=caller)) == "copies and zeros"
    assert where_time_goes._part(SimpleNamespace(name="aten::empty", cpu_parent=caller)) == "convolutions"


def test_two_checkouts_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(where_time_goes, "Worker", FakeWorker)
    out = tmp_path / "out.md"
    assert where_time_goes.main(["before", "now", "--cases", "demo", "--kinds", "step", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "1000 ms before, 500 now, ratio 0.500" in text
    assert "at most 0.0e+00 of their value apart" in text
    assert "| BatchNorm | 10.0 | 5.0 |" in text
    monkeypatch.setattr(FakeWorker, "built", [])
    command = ["before", "now", "--cases", "demo", "--kinds", "step", "--compile", "--out", str(out)]
    assert where_time_goes.main(command) == 0
    assert FakeWorker.built == [("before", False), ("now", True)]
    text = out.read_text(encoding="utf-8")
    assert "## demo, training step, compiled" in text
    assert "BatchNorm" not in text


def test_forms_are_compared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench_inference, "Worker", FakeWorker)
    out = tmp_path / "out.md"
    arguments = ["--before", "old", "--cases", "demo, 16 clips", "--forms", "as trained", "eager"]
    assert bench_inference.main([*arguments, "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "| before, as trained | 62.5 | 1.00 | 7 | 1 |" in text
    assert "| eager | 31.2 | 0.50 | 7 | 0 |" in text


def test_the_forms_in_a_worker_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench_inference.CASES, "tiny", (2, 8, 32, 2, 1))
    assert bench_inference.answer("build", "eager", "tiny", torch.get_num_threads()) > 0
    assert bench_inference.answer("turn", 1) > 0
    assert bench_inference.answer("memory") > 1


def test_a_library_that_is_not_installed_is_a_row_of_the_table() -> None:
    costs = {"one": {"gmacs": 4.0, "parameters": 2.0}, "other": {"missing": "No module named 'other'"}}
    measured = {kind: {"times": {"one": [1.0, 2.0, 6.0]}, "memory": {"one": 1500.0}} for kind in bench_peers.KINDS}
    *_, first, last = bench_peers.table(costs, {"one": "own"}, measured).splitlines()
    assert first == "| one | own | 2.0 | 4.0 | 2.00 | 500.0 | 1.50 | 2.00 | 500.0 | 1.50 |"
    assert last == "| other | not measured: No module named 'other' |" + 8 * " |"


def test_costs_are_those_of_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_peers.cost("s3d")["parameters"] == pytest.approx(8.32, abs=0.01)
    monkeypatch.setitem(bench_peers.PEERS, "none", bench_peers.Peer("no_such_library", "network"))
    assert bench_peers.answer("cost", "none") == {"missing": "No module named 'no_such_library'"}
