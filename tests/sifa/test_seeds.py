"""One run for each seed: which are started, what is kept, and the mean of their accuracy."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import train_val_3d
from engine.config import dump_config, load_config
from engine.scores import save_scores
from engine.statistics import mean_of_runs
from sifa import seeds
from sifa.seeds import SeedOptions
from tests.sifa.test_comparison import scores
from tools import seeds as command


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "mine.yml").write_text("optimization: {epochs: 3}\n")
    return tmp_path / "mine.yml"


class Starts:
    """Stands for the script: leaves what a run leaves, unless its seed is to fail."""

    def __init__(self, failing: int | None = None) -> None:
        self.failing = failing
        self.seeds: list[int] = []

    def __call__(self, options: SeedOptions, seed: int, place: int) -> "subprocess.Popen[bytes]":
        assert 0 <= place < options.parallel
        self.seeds.append(seed)
        own = [f"output_dir={options.folder(seed)}", f"seed={seed}"]
        options.folder(seed).mkdir(exist_ok=True)
        config = load_config(options.config_file, [*options.changes, *own])
        (options.folder(seed) / "config.yml").write_text(dump_config(config))
        (options.out / f"seed_{seed}.log").write_text("epoch 1\nerror: no luck\n")
        if seed == self.failing:
            return subprocess.Popen(["false"])
        save_scores(options.folder(seed) / "scores.npz", scores([True] * (seed + 1) + [False] * (9 - seed)))
        return subprocess.Popen(["true"])


def test_runs_that_are_done_are_kept_and_the_others_started(
    settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [f"--config_file={settings}", f"--out={tmp_path}/out", "--seeds", "1", "2", "3", "--parallel=2"]
    monkeypatch.setattr(seeds, "_start", first := Starts(failing=2))
    assert command.main(argv) == 1
    assert first.seeds == [1, 2, 3]
    assert "seed 2: exit code 1: error: no luck\n" in capsys.readouterr().out
    monkeypatch.setattr(seeds, "_start", again := Starts())
    assert command.main(argv) == 0
    assert again.seeds == [2]
    out = capsys.readouterr().out
    assert f"seed 1: done before, {tmp_path}/out/seed_1\n" in out
    assert "seed 2: top-1 30.00\n" in out
    rows = [line.split(",") for line in (tmp_path / "out/seeds.csv").read_text().splitlines()]
    assert rows[4][0] == '"mean'
    assert "30.00" in rows[4]
    # 20, 30, 40: deviation 10, Student's quantile of two degrees of freedom 4.303.
    assert rows[4][-1] == f"{30 - 4.303 * 10 / 3**0.5:.1f} to {30 + 4.303 * 10 / 3**0.5:.1f}"
    written = tmp_path / "out/seed_1/config.yml"
    written.write_text(re.sub("(?m)^  (cosine|projection): .*\n", "", written.read_text()))  # as before they existed
    assert command.main(argv) == 0
    assert command.main([*argv, "--set", "SIFA.cosine=true"]) == 2
    assert "is a run with other settings (SIFA.cosine False -> True)" in capsys.readouterr().err
    assert command.main([*argv, "--set", "optimization.epochs=4"]) == 2
    assert "is a run with other settings (optimization.epochs 3 -> 4): give another --out" in capsys.readouterr().err


def test_the_commands_are_those_of_the_script(settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, env, **_: started.append((command, env)))
    monkeypatch.setattr(seeds.torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    options: dict[str, Any] = {"config_file": str(settings), "out": tmp_path, "seeds": [7], "changes": ["seed=1"]}
    seeds._start(SeedOptions(**options), 7, 0)
    (command, environment) = started[0]
    assert command[:2] == [sys.executable, str(seeds.SCRIPT)]
    args = train_val_3d.parse_arguments(command[2:])
    assert (args.then_test, args.resume) == (True, "auto")
    assert load_config(args.config_file, args.set).seed == 7
    assert "CUDA_VISIBLE_DEVICES" not in environment
    seeds._start(SeedOptions(**options, parallel=2, nproc=2), 7, 1)
    (command, environment) = started[1]
    assert command[1:5] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert int(environment["OMP_NUM_THREADS"]) >= 1
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)  # as under nohup
    seeds._start(SeedOptions(**options, nproc=2), 7, 0)
    assert started[2][0][4:7] == ["--nproc_per_node=2", "--signals-to-handle=SIGTERM,SIGINT", str(seeds.SCRIPT)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "1", "1"], "--seeds must be different from each other"),
        (["--parallel=0"], "--parallel must be in 1..4096, got 0"),
        (["--set", "optimization.epoch=1"], "unknown key optimization.epoch"),
    ],
)
def test_mistakes(
    options: list[str], message: str, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([f"--config_file={settings}", f"--out={tmp_path}/out", *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_students_interval() -> None:
    one = mean_of_runs([1.0, 3.0])
    assert (one.value, one.low, one.high) == pytest.approx((2.0, 2 - 12.706, 2 + 12.706))
    many = mean_of_runs([0.0, 2.0] * 50)  # deviation 1.00504, 99 degrees of freedom: 1.984
    assert many.high - 1 == pytest.approx(1.984 * 1.00504 / 10, rel=1e-3)
    assert mean_of_runs([5.0]).low == float("-inf")
    with pytest.raises(ValueError, match="no value"):
        mean_of_runs([])
