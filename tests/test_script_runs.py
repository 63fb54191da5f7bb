"""What happens to runs of train_val_3d.py that are killed, stopped, or lose a process: they go on, or say so."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train_val_3d
from engine.scores import load_scores
from tests.killed_run import process_of_rank
from tests.script import ROOT, VIDEOS, arguments, launch, metrics, weights

SPEED = {"clips_per_second"}  # what differs between runs that are the same

# Everything that has a state: average of weights, accumulated gradients, scaler of fp16, worker processes.
EVERYTHING = [
    *("optimization.ema_decay=0.9", "optimization.iter_size=2", "execution.amp=fp16", "dataset.num_workers=1"),
    *("optimization.epochs=10", "optimization.precise_bn=2", "evaluation.eva_inter_freq=3", "logging.print_freq=3"),
    "transform.mixup_alpha=0.5",
]


@pytest.fixture(scope="module")
def longer(data: Path) -> str:
    """A training list of 21 lines: ten iterations an epoch with batches of two, and one video left over."""
    (data / "longer.txt").write_text((data / "list.txt").read_text() * 3)
    return f"dataset.list_file={data}/longer.txt"


def figures(output: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in SPEED} for line in metrics(output)]


def assert_same_run(one: Path, other: Path) -> None:
    """The same figures, and everything in the last checkpoint the same to the bit."""
    assert figures(one) == figures(other)
    first, second = (torch.load(path / "checkpoints/last.pth", weights_only=True) for path in (one, other))
    for contents in (first, second):
        contents.pop("config")  # names the output folder
    assert first.keys() == second.keys()
    _assert_equal(first, second, "")


def _assert_equal(one: Any, other: Any, where: str) -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            _assert_equal(value, other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            _assert_equal(a, b, f"{where}.{i}")
    else:
        assert one == other, where


# ---- Killed ---------------------------------------------------------------------------------------------------------

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["train_val_3d"])  # so that a run starts in no time


def _run(argv: list[str]) -> None:
    torch.set_num_threads(1)
    sys.exit(train_val_3d.main(argv))


def test_a_run_killed_at_any_moment_goes_on_as_if_it_never_was(data: Path, longer: str, tmp_path: Path) -> None:
    """SIGKILL at twenty random moments, while it starts, trains, saves and validates."""
    options = ["--resume", "auto", "--set", longer, *EVERYTHING, "logging.save_iter_freq=3"]
    whole = _PROCESSES.Process(target=_run, args=(arguments(data, tmp_path / "whole", *options),))
    began = time.monotonic()
    whole.start()
    whole.join()
    assert whole.exitcode == 0
    moments, kills, run = random.Random(0), 0, 0
    least = min(0.5, (time.monotonic() - began) / 8)
    while kills < 20:
        run += 1
        output, finished = tmp_path / f"killed {run}", False
        while not finished:
            process = _PROCESSES.Process(target=_run, args=(arguments(data, output, *options),))
            process.start()
            process.join(least + moments.random() if kills < 20 else None)
            finished = process.exitcode == 0
            if not finished:
                assert process.exitcode is None, "it may only end by being killed"
                process.kill()
                process.join()
                kills += 1
        assert_same_run(tmp_path / "whole", output)


def test_a_broken_newest_checkpoint_is_passed_over(data: Path, longer: str, tmp_path: Path) -> None:
    """And what was trained after the previous one is trained again, with the same bits."""
    options = ["--set", longer, *EVERYTHING[:4], "optimization.epochs=2", "logging.save_iter_freq=4"]
    assert train_val_3d.main(arguments(data, tmp_path / "whole", *options)) == 0
    broken = tmp_path / "broken"
    shutil.copytree(tmp_path / "whole", broken)
    last = broken / "checkpoints/last.pth"
    (broken / "checkpoints/epoch_2.pth").unlink()  # the same file under a second name
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    assert train_val_3d.main(arguments(data, broken, "--resume", "auto", *options)) == 0
    log = (broken / "log.txt").read_text()
    assert "last.pth is damaged: the checksum of" in log
    assert "before_last.pth is used instead" in log
    assert "resumed from" in log
    assert "after epoch 1 and 8 iterations" in log
    assert_same_run(tmp_path / "whole", broken)


# ---- Asked to stop --------------------------------------------------------------------------------------------------


def start_run(processes: int, argv: list[str]) -> subprocess.Popen[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    return subprocess.Popen(
        [sys.executable, *launcher, "train_val_3d.py", *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def lines_until(run: subprocess.Popen[str], word: str) -> Iterator[str]:
    assert run.stdout is not None
    for line in run.stdout:
        yield line
        if word in line:
            return
    raise AssertionError(f"the run ended without {word!r}")


def test_what_stops_a_run_saves_it_first(data: Path, longer: str, tmp_path: Path) -> None:
    options = ["--set", longer, *EVERYTHING, "logging.print_freq=1"]
    whole = start_run(1, arguments(data, tmp_path / "whole", *options))  # of as many threads as the others
    for number, at in ((signal.SIGINT, "epoch 2/10  3/10"), (signal.SIGTERM, "epoch 5/10  1/10")):
        run = start_run(1, arguments(data, tmp_path / "stopped", "--resume", "auto", *options))
        list(lines_until(run, at))
        run.send_signal(number)
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 128 + number
        assert f"error: stopped by {number.name}, saved" in output
        assert "Traceback" not in output
    last = start_run(1, arguments(data, tmp_path / "stopped", "--resume", "auto", *options))
    for run in (whole, last):
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0, output
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


# ---- Several processes ----------------------------------------------------------------------------------------------


def test_a_lost_process_is_replaced_and_the_run_goes_on(data: Path, longer: str, tmp_path: Path) -> None:
    """torchrun --max-restarts: the same bits as a run that lost none, without --resume."""
    options = [
        "--set",
        longer,
        *EVERYTHING,
        "optimization.epochs=4",
        "logging.save_iter_freq=1",
        "logging.print_freq=1",
    ]
    whole = launch(["torch.distributed.run", "--standalone"], 2, *arguments(data, tmp_path / "whole", *options))
    assert whole.returncode == 0, whole.stderr
    output = killed_at("epoch 2/4  2/", 2, arguments(data, tmp_path / "replaced", *options))
    assert "rank 0 has lost rank 1 on" in output
    assert "resumed from" in output
    assert_same_run(tmp_path / "whole", tmp_path / "replaced")


def killed_at(line: str, processes: int, args: list[str]) -> str:
    """What torchrun prints that replaces its processes once, the last of which is killed at this line."""
    how = ["torch.distributed.run", "--standalone", "--max-restarts=1", "-m"]
    run = launch(how, processes, line, *args, program="tests.killed_run")
    assert run.returncode == 0, run.stderr
    assert line in run.stdout
    assert "exitcode: -9" in run.stderr, "nothing was killed"
    return run.stdout + run.stderr


def test_a_replaced_process_goes_on_with_its_own_training(data: Path, longer: str, tmp_path: Path) -> None:
    """Not with one that was in the folder before, nor with the checkpoint that it once went on from."""
    used, settings = tmp_path / "used", ["--set", longer, "optimization.epochs=2"]
    assert train_val_3d.main(arguments(data, used, *settings)) == 0
    epochs = "optimization.epochs=4"
    started = killed_at("epoch 1/4  3/", 1, arguments(data, used, *settings, epochs, "seed=3"))
    assert "resumed from" not in started
    assert [line["epoch"] for line in metrics(used)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert torch.load(used / "checkpoints/last.pth", weights_only=True)["config"]["seed"] == 3

    first = f"--resume={used}/earlier_1/checkpoints/epoch_1.pth"
    output = killed_at("epoch 4/4  3/", 1, arguments(data, tmp_path / "on", *settings, epochs, first))
    assert "epoch_1.pth after epoch 1" in output
    assert f"{tmp_path}/on/checkpoints/last.pth after epoch 3" in output
    assert [line["epoch"] for line in metrics(tmp_path / "on")] == [1, 2, 2, 3, 3, 4, 4]  # with the first validation


def test_a_process_that_hangs_is_named(data: Path, longer: str, tmp_path: Path) -> None:
    options = ["--set", longer, "optimization.epochs=1000", "execution.timeout=6"]
    run = start_run(3, arguments(data, tmp_path, *options))
    list(lines_until(run, "epoch 2/"))
    hanging = process_of_rank(run.pid, 1)
    os.kill(hanging, signal.SIGSTOP)
    output = "".join(lines_until(run, "error: rank 0 has lost rank 1 on "))
    os.kill(hanging, signal.SIGKILL)
    output += run.communicate(timeout=60)[0]
    assert run.returncode == 1
    assert "lost rank 0" not in output
    assert "lost rank 2" not in output
    assert "Traceback" not in output.partition("error: rank")[0]


def test_an_error_nobody_thought_of_ends_the_run(data: Path, longer: str, tmp_path: Path) -> None:
    """A worker of the loader dies, as when the memory is out: the run must not wait for its workers for ever."""
    options = ["--set", longer, "optimization.epochs=1000", "dataset.num_workers=2"]
    run = start_run(1, arguments(data, tmp_path, *options))
    list(lines_until(run, "epoch 2/"))
    worker = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()[0]
    os.kill(int(worker), signal.SIGKILL)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "DataLoader worker" in output


@pytest.mark.parametrize(
    ("processes", "batch_size", "workers"), [(1, 1, 0), (1, 5, 2), (2, 4, 1), (3, 3, 0), (4, 2, 1)]
)
def test_the_figures_of_a_validation_depend_on_nothing_but_the_network(
    processes: int, batch_size: int, workers: int, data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]]
) -> None:
    """All of metrics.jsonl, to the last digit."""
    checkpoint, expected = reference
    argv = arguments(
        *(data, tmp_path, "--eval", f"--checkpoint={checkpoint}", "--set", "evaluation.eva_num_clips=2"),
        *(f"evaluation.batch_size={batch_size}", f"dataset.num_workers={workers}"),
    )
    if processes == 1:
        assert train_val_3d.main(argv) == 0
    else:
        result = launch(["torch.distributed.run", "--standalone"], processes, *argv)
        assert result.returncode == 0, result.stderr
    assert metrics(tmp_path) == [expected]


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A trained checkpoint, and the figures of its validation by one process with a batch for everything."""
    folder = tmp_path_factory.mktemp("reference")
    assert train_val_3d.main(arguments(data, folder, "--set", "optimization.epochs=1")) == 0
    checkpoint = folder / "checkpoints/last.pth"
    more = ["evaluation.eva_num_clips=2", "evaluation.batch_size=100"]
    argv = arguments(data, folder / "eval", "--eval", f"--checkpoint={checkpoint}", "--set", *more)
    assert train_val_3d.main(argv) == 0
    (line,) = metrics(folder / "eval")
    assert line["videos"] == VIDEOS
    return checkpoint, line


def test_an_evaluation_matches_the_classes_by_name(
    data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    """A class file in another order, with a list made for it, gives the same figures; other classes are refused."""
    checkpoint, expected = reference
    (tmp_path / "classes.txt").write_text("c\na\nb\n")
    lines = [line.rsplit(" ", 1) for line in (data / "list.txt").read_text().splitlines()]
    (tmp_path / "list.txt").write_text("".join(f"{video} {'120'[int(label)]}\n" for video, label in lines))
    argv = arguments(data, tmp_path / "run", "--eval", f"--checkpoint={checkpoint}", "--set")
    argv += ["evaluation.eva_num_clips=2", "evaluation.batch_size=100", f"dataset.eva_list_file={tmp_path}/list.txt"]
    argv += [f"dataset.classes_file={tmp_path}/classes.txt", "dataset.list_file=''"]
    assert train_val_3d.main(argv) == 0
    assert metrics(tmp_path / "run") == [expected]
    assert "are in another order: labels are matched by name" in capfd.readouterr().out

    (tmp_path / "classes.txt").write_text("c\na\nd\n")
    assert train_val_3d.main(argv) == 2
    error = capfd.readouterr().err
    assert "has other classes: number 0 is 'a' there and 'c' in dataset.classes_file" in error


def test_an_evaluation_of_another_network_than_was_trained_is_refused(
    data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without offsets, or with a shift that has no weights, the same weights load into another network."""
    checkpoint, _ = reference
    shift = torch.load(checkpoint, weights_only=True)
    shift["model"] = {name: value for name, value in shift["model"].items() if ".temporal." not in name}
    shift["config"]["SIFA"]["temporal"] = "shift"
    torch.save(shift, tmp_path / "shift.pth")
    settings = tmp_path / "none.yml"
    settings.write_text(f"base: {data}/settings.yml\nSIFA: {{temporal: none}}\ndataset: {{num_steps: 2}}\n")
    argv = [f"--config_file={settings}", "--eval", f"--checkpoint={tmp_path}/shift.pth", "--set"]
    argv += [f"output_dir={tmp_path}/run"]
    assert train_val_3d.main(argv) == 2
    assert "was trained with other settings: SIFA.temporal shift -> none; give the same" in capfd.readouterr().err
    assert train_val_3d.main([*argv, "SIFA.temporal=none"]) == 0
    assert "dataset.num_steps 1 -> 2, SIFA.temporal shift -> none" in "".join(capfd.readouterr())
    assert train_val_3d.main([*argv, "SIFA.temporal=shift"]) == 0


def test_lists_made_with_different_class_files_are_refused(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder, names in (("one", "a\nb\nc\n"), ("two", "a\nc\nb\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "classes.txt").write_text(names)
        shutil.copy(data / "list.txt", tmp_path / folder)
    lists = [f"dataset.list_file={tmp_path}/one/list.txt", f"dataset.eva_list_file={tmp_path}/two/list.txt"]
    assert train_val_3d.main(arguments(data, tmp_path / "run", "--set", *lists)) == 2
    error = capfd.readouterr().err
    assert f"the lists have different classes: {tmp_path}/one/classes.txt and {tmp_path}/two/classes.txt" in error
    assert "from line 2 on" in error


# ---- The multi-view test --------------------------------------------------------------------------------------------

VIEWS = ["evaluation.eva_num_clips=2", "evaluation.eva_num_crop=3", "evaluation.batch_size=4"]


def test_a_test_saves_the_scores_of_every_view(
    data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint, _ = reference
    argv = arguments(data, tmp_path, "--test", f"--checkpoint={checkpoint}", "--set", *VIEWS)
    assert train_val_3d.main(argv) == 0
    scores = load_scores(tmp_path / "scores.npz")
    assert scores.probabilities.shape == (VIDEOS, 6, 3)
    assert np.allclose(scores.probabilities.sum(-1), 1, atol=1e-6)
    assert (scores.videos[1], scores.labels[1], scores.classes) == ("v 1", 1, ["a", "b", "c"])
    one, all_views = metrics(tmp_path)
    assert (one["split"], all_views["split"]) == ("test of the middle view", "test")
    for line, probabilities in ((one, scores.of_middle_view()), (all_views, scores.of_all_views())):
        assert line["top1"] == 100 * (scores.ranks(probabilities) < 1).mean()
    lines = capfd.readouterr().out.splitlines()
    assert lines[-2].startswith(f"top-1 {all_views['top1']:.2f} (")
    assert lines[-2].endswith(f"  ({VIDEOS} videos, 2 clips x 3 crops)")
    # The same as --eval says of the same views.
    argv[argv.index("--test")] = "--eval"
    assert train_val_3d.main(argv) == 0
    last = metrics(tmp_path)[-1]
    assert {name: last[name] for name in ("loss", "top1", "top3")} == {
        name: all_views[name] for name in ("loss", "top1", "top3")
    }
    assert not (tmp_path / "scores.parts").exists()


def test_a_test_that_was_killed_goes_on_with_what_it_had(
    data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with other processes; and not with the scores of another network."""
    checkpoint, _ = reference
    argv = arguments(data, tmp_path / "whole", "--test", f"--checkpoint={checkpoint}", "--set", *VIEWS)
    assert train_val_3d.main(argv) == 0

    monkeypatch.setattr("engine.partial_scores.SECONDS_BETWEEN_PARTS", -1)
    views = iter(range(1000))

    def stop_in_the_middle(self: object) -> None:
        if next(views) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr("engine.eval_loop.Validator.check_stop", stop_in_the_middle)
    argv = [argument.replace("whole", "killed") for argument in argv]
    with pytest.raises(KeyboardInterrupt):
        train_val_3d.main(argv)
    monkeypatch.undo()
    parts = tmp_path / "killed/scores.parts"
    done = len(list(parts.glob("*.npz")))
    assert 2 <= done < VIDEOS
    (parts / "00001-0.npz").write_bytes(b"")  # what the loss of power leaves
    shutil.copy(parts / "test.json", tmp_path)
    written = (parts / "test.json").read_text()
    assert '"cosine": false, ' in written
    (parts / "test.json").write_text(written.replace('"cosine": false, ', ""))  # as before this key existed
    result = launch(["torch.distributed.run", "--standalone"], 2, *argv)
    assert result.returncode == 0, result.stderr
    assert f"{done - 1} of {VIDEOS} videos are scored already" in result.stdout
    one, other = (load_scores(tmp_path / name / "scores.npz") for name in ("whole", "killed"))
    assert np.allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "killed")

    # Neither with those of another network, nor of other crops.
    for number, change in enumerate(["{}", (tmp_path / "test.json").read_text().replace('"eva_crop_size": 16', "24")]):
        parts.mkdir()
        (parts / "test.json").write_text(change)
        (parts / "00001-0.npz").write_bytes(b"of another test")
        assert train_val_3d.main(argv) == 0
        log = (tmp_path / "killed/log.txt").read_text()
        assert log.count("is of another test: the scores are computed again") == number + 1


@pytest.mark.parametrize("how", ["--eval", "--test"])
def test_weights_that_are_not_finite_are_an_error(
    how: str, data: Path, tmp_path: Path, reference: tuple[Path, dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    contents = torch.load(reference[0], weights_only=True)
    contents["model"]["fc.bias"][0] = float("nan")
    torch.save(contents, tmp_path / "nan.pth")
    argv = arguments(data, tmp_path / "run", how, f"--checkpoint={tmp_path}/nan.pth")
    assert train_val_3d.main(argv) == 2
    assert (
        f"error: the scores of {VIDEOS} of {VIDEOS} videos are not finite (v 0 is the first)" in capfd.readouterr().err
    )
    assert not (tmp_path / "run/metrics.jsonl").exists()
    assert not (tmp_path / "run/scores.npz").exists()


# ---- What goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_leaves_its_batch(
    data: Path, longer: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = [longer, "optimization.base_learning_rate=1e30", "optimization.clip_gradient=0", "logging.print_freq=7"]
    assert train_val_3d.main(arguments(data, tmp_path, "--set", *more, "transform.repeated_augmentation=2")) == 2
    captured = capfd.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    iteration = int(line.partition("not finite in iteration ")[2].split()[0])
    assert 1 < iteration <= 7
    batch = torch.load(tmp_path / "diverged_rank0.pth", weights_only=True)
    assert (batch["epoch"], batch["iteration"]) == (0, iteration)
    assert batch["clips"].shape == (2, 8, 16, 16, 3)
    assert len(set(batch["videos"])) == 1, "a video twice, by repeated augmentation"
    assert not torch.equal(*batch["clips"])
    assert not (tmp_path / "checkpoints/last.pth").exists()


def test_a_full_disk(data: Path, longer: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], capture_output=True, check=False)
    if mount.returncode:
        pytest.skip("this machine does not let a test mount a small disk")
    try:
        argv = arguments(data, disk / "run", "--set", longer, "optimization.epochs=20")
        run = subprocess.run(
            [sys.executable, "train_val_3d.py", *argv], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert run.returncode == 2
        (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
        assert "No space left" in line or "full" in line
        assert "Traceback" not in run.stderr
        # The checkpoints that were there are whole.
        saved = weights(disk / "run")
        assert all(value.isfinite().all() for value in saved.values())
        for file in (disk / "run/checkpoints").iterdir():
            assert torch.load(file, weights_only=True)["epoch"] >= 1
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_learning_rate_that_goes_with_the_step_is_printed(data: Path, tmp_path: Path) -> None:
    more = ["optimization.learning_rate_for=8", "optimization.epochs=1"]
    assert train_val_3d.main(arguments(data, tmp_path, "--set", *more)) == 0
    log = (tmp_path / "log.txt").read_text()
    assert "2 clips a step, learning rate 0.0025" in log
    assert "lr 2.50e-03" in log


def test_seed_and_deterministic_repeat_a_run_to_the_bit(data: Path, tmp_path: Path) -> None:
    more = ["--deterministic", "--set", "optimization.epochs=1", "dataset.num_workers=1"]
    for name, seed in (("one", 4), ("two", 4), ("three", 5)):
        assert train_val_3d.main(arguments(data, tmp_path / name, "--seed", str(seed), *more)) == 0
    assert_same_run(tmp_path / "one", tmp_path / "two")
    assert not torch.equal(weights(tmp_path / "one")["fc.weight"], weights(tmp_path / "three")["fc.weight"])
    torch.use_deterministic_algorithms(False)


def test_shares_of_a_network_train_as_copies_do(data: Path, longer: str, tmp_path: Path) -> None:
    """execution.strategy fsdp: the figures of ddp; and a run that goes on from the middle ends with the same bits."""
    options = ["--set", longer, "optimization.ema_decay=0.9", "optimization.iter_size=2", "logging.save_iter_freq=2"]
    shares = [*options, "execution.strategy=fsdp"]
    runs = {
        "copies": [*options, "execution.channels_last=false"],
        "shares": shares,
        "again": [*shares, "--resume", str(tmp_path / "shares/checkpoints/before_last.pth")],
    }
    for name, argv in runs.items():
        result = launch(["torch.distributed.run", "--standalone"], 2, *arguments(data, tmp_path / name, *argv))
        assert result.returncode == 0, result.stderr
    assert "after epoch 1 and 2 iterations" in (tmp_path / "again/log.txt").read_text()
    copies, whole, again = (torch.load(tmp_path / name / "checkpoints/last.pth", weights_only=True) for name in runs)
    for part in ("model", "ema"):
        assert copies[part].keys() == whole[part].keys()
        for name, value in whole[part].items():
            assert torch.equal(value, again[part][name]), name
            assert torch.allclose(value.float(), copies[part][name].float(), rtol=1e-3, atol=1e-4), name
    assert metrics(tmp_path / "copies")[-1]["loss"] == pytest.approx(metrics(tmp_path / "shares")[-1]["loss"], abs=1e-3)
