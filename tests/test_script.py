"""train_val_3d.py as its users run it: train, validate, resume, several processes, and every mistake in one line."""

import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import train_val_3d
from engine.checkpoint import save_checkpoint
from engine.metrics import interval
from engine.scores import load_scores
from tests.script import ROOT, VIDEOS, arguments, launch, metrics, weights


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    assert train_val_3d.main(arguments(data, output)) == 0
    return output


def test_what_a_run_leaves_behind(trained: Path) -> None:
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    assert {"config.yml", "log.txt", "metrics.jsonl", "metrics.csv"} < names
    assert {"checkpoints/last.pth", "checkpoints/epoch_1.pth", "checkpoints/epoch_2.pth"} < names
    assert any(name.startswith("tensorboard/events") for name in names)
    lines = metrics(trained)
    assert [(line["epoch"], line["split"], line["videos"]) for line in lines] == [
        (1, "train", 6),  # three batches of two; the seventh video waits for another epoch
        (1, "val", VIDEOS),
        (2, "train", 6),
        (2, "val", VIDEOS),
    ]
    assert all({"loss", "top1", "top3", "top5"} <= set(line) for line in lines)
    assert lines[-1]["top3"] == 100.0  # of three classes
    saved = torch.load(trained / "checkpoints/last.pth", weights_only=True)
    assert (saved["epoch"], saved["classes"], saved["config"]["dataset"]["num_classes"]) == (2, ["a", "b", "c"], 3)
    assert saved["trained_on"] == f"{saved['config']['dataset']['name']}: 3 classes, 7 videos"


def test_the_log_tells_loss_rate_speed_and_time_left(trained: Path) -> None:
    log = (trained / "log.txt").read_text().splitlines()
    (line,) = [line for line in log if "epoch 1/2  loss" in line]
    for word in ("loss ", "lr ", "clips/s", "left 0:00:"):
        assert word in line
    assert log[-2].endswith(f"({VIDEOS} videos, 1 clips x 1 crops)")
    assert "validation top-1 so far  " in log[-1]
    assert sum("of 3 classes (chance: loss 1.10, accuracy 33.3 %)" in line for line in log) == 1


def test_validation_alone_gives_the_same_figures(
    data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    more = "--eval", f"--checkpoint={trained}/checkpoints/last.pth"
    assert train_val_3d.main(arguments(data, tmp_path, *more)) == 0
    (line,) = metrics(tmp_path)
    expected = metrics(trained)[-1]
    assert {**line, "split": "val"} == expected
    last = capfd.readouterr().out.splitlines()[-1]
    low, high = interval(round(expected["top1"] * VIDEOS / 100), VIDEOS)
    assert last.startswith(f"top-1 {expected['top1']:.2f} ({low:.1f} to {high:.1f})  top-3 100.00 (")
    assert last.endswith(f"  loss {expected['loss']:.4f}  ({VIDEOS} videos, 1 clips x 1 crops)")
    assert not (tmp_path / "config.yml").exists()


def test_a_test_may_follow_the_training(
    data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one command, also for a training that is done already; the scores are those of --test alone."""
    shutil.copytree(trained, tmp_path / "run")
    argv = arguments(data, tmp_path / "run", "--then_test", "--resume=auto")
    assert train_val_3d.main(argv) == 0
    assert f"{tmp_path}/run/scores.npz: python -m tools.report {tmp_path}/run " in capfd.readouterr().out
    alone = arguments(data, tmp_path / "alone", "--test", f"--checkpoint={trained}/checkpoints/last.pth")
    assert train_val_3d.main(alone) == 0
    one, other = (load_scores(tmp_path / name / "scores.npz").probabilities for name in ("run", "alone"))
    assert (one == other).all()
    with pytest.raises(SystemExit):
        train_val_3d.main([*argv, "--eval"])


def test_several_views(data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    views = "evaluation.eva_num_clips=2", "evaluation.eva_num_crop=3"
    more = "--eval", f"--checkpoint={trained}/checkpoints/last.pth", "--set", *views
    assert train_val_3d.main(arguments(data, tmp_path, *more)) == 0
    assert capfd.readouterr().out.splitlines()[-1].endswith(f"({VIDEOS} videos, 2 clips x 3 crops)")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_ends_with_the_same_bits(data: Path, trained: Path, tmp_path: Path, workers: int) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.pth").write_bytes((trained / "checkpoints/epoch_1.pth").read_bytes())
    # The weights that the run once started from play no part any more, and may be gone.
    gone = "network.imagenet_weights=gone.pth"
    more = "--resume", "auto", "--set", f"dataset.num_workers={workers}", gone
    assert train_val_3d.main(arguments(data, tmp_path, *more)) == 0
    # The first epoch's validation is made up for: there is no word of it in this folder.
    assert [(line["epoch"], line["split"]) for line in metrics(tmp_path)] == [(1, "val"), (2, "train"), (2, "val")]
    expected = weights(trained)
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name


def test_resume_auto_starts_anew_where_there_is_nothing(data: Path, tmp_path: Path) -> None:
    more = "--resume", "auto", "--set", "optimization.epochs=1"
    assert train_val_3d.main(arguments(data, tmp_path, *more)) == 0
    assert "training starts from the beginning" in (tmp_path / "log.txt").read_text()


def test_a_new_training_in_a_used_folder_leaves_the_earlier_one_whole(
    data: Path, trained: Path, tmp_path: Path
) -> None:
    output = tmp_path / "used"
    shutil.copytree(trained, output)
    assert train_val_3d.main(arguments(data, output, "--set", "optimization.epochs=1", "seed=5")) == 0
    assert [(line["epoch"], line["split"]) for line in metrics(output)] == [(1, "train"), (1, "val")]
    assert {path.name for path in (output / "checkpoints").iterdir()} == {"last.pth", "epoch_1.pth"}
    assert "what an earlier training left" in (output / "log.txt").read_text()
    assert metrics(output / "earlier_1") == metrics(trained)
    for name, value in weights(output / "earlier_1").items():
        assert torch.equal(value, weights(trained)[name]), name


def test_a_mistake_leaves_the_folder_as_it_was(
    data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "used"
    shutil.copytree(trained, output)
    before = sorted(output.rglob("*"))
    for change in ("dataset.root_path=nowhere", "optimization.freeze=['nothing*']", "optimization.batch_size=50"):
        mistake(capfd, arguments(data, output, "--set", change))
        assert sorted(output.rglob("*")) == before


def test_going_back_to_a_checkpoint_of_its_own(data: Path, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "used"
    shutil.copytree(trained, output)
    assert train_val_3d.main(arguments(data, output, f"--resume={output}/checkpoints/epoch_1.pth")) == 0
    assert [(line["epoch"], line["split"]) for line in metrics(output)] == [
        (1, "train"),
        (1, "val"),
        (2, "train"),
        (2, "val"),
    ]
    expected = weights(trained)
    for name, value in weights(output).items():
        assert torch.equal(value, expected[name]), name


@pytest.fixture(scope="session")
def within_an_epoch(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a training after one of three iterations of an epoch, as a checkpoint."""
    output = tmp_path_factory.mktemp("within")
    saved = []

    def save(path: Path, contents: dict, **options: Any) -> None:
        save_checkpoint(path, contents, **options)
        saved.append(contents["iteration"])
        if contents["iteration"] == 1:
            shutil.copy(path, output / "within.pth")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.logger.save_checkpoint", save)
        more = "--set", "logging.save_iter_freq=1", "optimization.epochs=1"
        assert train_val_3d.main(arguments(data, output, *more)) == 0
    assert saved == [1, 2, 0]
    return output / "within.pth"


def test_the_rest_of_an_epoch_is_refused_in_another_order(
    data: Path, within_an_epoch: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "turned.txt").write_text("\n".join(reversed((data / "list.txt").read_text().splitlines())) + "\n")
    for change, word in (("seed=1", "seed"), (f"dataset.list_file={tmp_path}/turned.txt", "dataset.list_file")):
        line = mistake(capfd, arguments(data, tmp_path, f"--resume={within_an_epoch}", "--set", change))
        assert "of the middle of an epoch" in line
        assert word in line
    more = f"--resume={within_an_epoch}", "--set", "optimization.epochs=1", "execution.channels_last=false"
    assert train_val_3d.main(arguments(data, tmp_path, *more)) == 0
    assert "other than before: execution.channels_last True -> False" in capfd.readouterr().out


def test_another_optimiser_is_refused_and_another_seed_named(
    data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = f"--resume={trained}/checkpoints/epoch_1.pth"
    for change in ("optimization.optimizer=adamw", "optimization.layer_multipliers={'fc.*': 2.0}"):
        line = mistake(capfd, arguments(data, tmp_path, first, "--set", change))
        assert f"is of a run with {change.partition('=')[0]}" in line
    assert train_val_3d.main(arguments(data, tmp_path, first, "--set", "seed=1")) == 0
    assert "other than before: seed 0 -> 1" in capfd.readouterr().out


@pytest.fixture(scope="session")
def trained_by_two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("two")
    more = "--set", "optimization.epochs=1", "optimization.iter_size=1", "dataset.num_workers=1"
    result = launch(["torch.distributed.launch", "--standalone"], 2, *arguments(data, output, *more))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("top-1 ") == 1, "rank 0 alone prints"
    return output


def test_two_processes_train_and_validate(trained_by_two: Path) -> None:
    train, val = metrics(trained_by_two)
    assert (train["videos"], val["videos"]) == (4, VIDEOS)


def test_three_processes_validate_like_one(data: Path, trained_by_two: Path, tmp_path: Path) -> None:
    """And like the two that trained: the figures of the checkpoint are those of the network they had."""
    more = "--eval", f"--checkpoint={trained_by_two}/checkpoints/last.pth"
    result = launch(
        ["torch.distributed.run", "--standalone"],
        3,
        *arguments(data, tmp_path / "three", *more, "--set", "evaluation.batch_size=2"),
    )
    assert result.returncode == 0, result.stderr
    assert train_val_3d.main(arguments(data, tmp_path / "one", *more)) == 0
    (three,), (one,) = metrics(tmp_path / "three"), metrics(tmp_path / "one")
    two = metrics(trained_by_two)[-1]
    for name in ("videos", "top1", "top3", "top5"):
        assert one[name] == two[name] == three[name], name
    # Batches of another size are summed in another order inside the network.
    assert one["loss"] == pytest.approx(three["loss"], rel=1e-5)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)


# ---- Mistakes: one line, exit code 2 --------------------------------------------------------------------------------


def mistake(capfd: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line that a wrong call prints."""
    assert train_val_3d.main(argv) == 2
    error = capfd.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in error
    return line


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--nonsense", 2)])
def test_help_and_unknown_options_print_no_traceback(option: str, code: int) -> None:
    result = subprocess.run(
        [sys.executable, "train_val_3d.py", option], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == code
    assert "usage: train_val_3d.py" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


SETTINGS = {
    "wrong key": ("optimization.epoch=3", "unknown key optimization.epoch; did you mean epochs?"),
    "wrong type": ("optimization.epochs=three", "optimization.epochs: input should be a valid integer, got 'three'"),
    "even kernel": ("SIFA.sifa_kernel=[1,3,2,3]", "SIFA.sifa_kernel: must be odd, positive sizes, got [1, 3, 2, 3]"),
    "unknown network": ("network.net_name=resnet18", "net_name"),
    "frames that do not divide": ("dataset.clip_length=12", "must be a positive multiple of 8"),
    "no list": ("dataset.list_file=''", "dataset.list_file must name a list file"),
    "missing list": ("dataset.list_file=nowhere.txt", "nowhere.txt"),
    "missing validation list": ("dataset.eva_list_file=nowhere.txt", "nowhere.txt"),
    "missing root": ("dataset.root_path=nowhere", "nowhere"),
    "too few classes": ("dataset.num_classes=2", "classes"),
    "too large a batch": ("optimization.batch_size=50", "has 7 videos, fewer than one step takes"),
    "a date for a seed": ("seed=20240101120000", "seed: input should be less than 4294967296"),
    "no end": ("execution.timeout=.inf", "execution.timeout: input should be a finite number"),
    "nesterov alone": ("optimization={nesterov: true, momentum: 0.0}", "nesterov needs a momentum above 0"),
    "missing weights": (
        "network.imagenet_weights=nowhere.pth",
        "network.imagenet_weights: there is no file nowhere.pth",
    ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_mistakes_in_the_settings(name: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, message = SETTINGS[name]
    assert message in mistake(capfd, arguments(data, tmp_path, "--set", change))


def test_a_missing_or_broken_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.yml does not exist" in mistake(capfd, ["--config_file=nowhere.yml"])
    (tmp_path / "broken.yml").write_text("dataset: [1\n  x: {")
    assert "broken.yml:2: not valid YAML" in mistake(capfd, [f"--config_file={tmp_path}/broken.yml"])


LISTS = {
    "malformed": ("v 0 10 0\nv 1\n", "list.txt:2: "),
    "label outside": ("v 0 10 0\nv 1 10 3\n", "list.txt:2: "),
    "outside the root": ("v 0 10 0\n../v 1 10 1\n", "list.txt:2: "),
    "empty": ("", "list.txt"),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_wrong_list(name: str, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, message = LISTS[name]
    (tmp_path / "list.txt").write_text(text)
    assert message in mistake(capfd, arguments(data, tmp_path, "--set", f"dataset.list_file={tmp_path}/list.txt"))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_frame(workers: int, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("v 0 10 0\nv 1 99 1\n")  # frames 11 to 99 are not there
    changes = [f"dataset.eva_list_file={tmp_path}/list.txt", "dataset.num_segments=4", "dataset.clip_length=2"]
    argv = arguments(data, tmp_path, "--set", *changes, f"dataset.num_workers={workers}", "optimization.epochs=1")
    line = mistake(capfd, argv)
    assert f"{tmp_path}/list.txt:2: " in line
    assert "00025.jpg" in line
    assert not multiprocessing.active_children()  # Python would wait for them at its end


def test_wrong_checkpoints(data: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def evaluate(path: Path, *more: str) -> str:
        return mistake(capfd, arguments(data, tmp_path, "--eval", f"--checkpoint={path}", *more))

    assert "nowhere.pth does not exist" in evaluate(tmp_path / "nowhere.pth")
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes((trained / "checkpoints/last.pth").read_bytes()[:5000])
    assert "damaged.pth is damaged" in evaluate(damaged)
    malicious = tmp_path / "malicious.pth"
    torch.save({"model": print}, malicious)
    assert "malicious.pth is refused" in evaluate(malicious)
    (tmp_path / "list.txt").write_text("v 0 10 4\n")
    changes = ["dataset.num_classes=5", "dataset.classes_file=''", f"dataset.eva_list_file={tmp_path}/list.txt"]
    line = evaluate(trained / "checkpoints/last.pth", "--set", *changes)
    assert "does not fit this model" in line
    assert "fc.weight" in line


def test_arguments_that_contradict_each_other(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for more in (["--eval"], ["--resume", "auto", "--eval", "--checkpoint=x"]):
        with pytest.raises(SystemExit) as caught:
            train_val_3d.main(arguments(data, data, *more))
        assert caught.value.code == 2
        assert "error: --" in capfd.readouterr().err


def test_an_output_folder_that_cannot_be(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder to write in" in mistake(capfd, arguments(data, tmp_path / "file" / "run"))
