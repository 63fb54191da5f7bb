"""The baselines compute what the op computes, and the reports are complete."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import (
    bench_block,
    bench_decoders,
    bench_loader,
    bench_network,
    bench_op,
    bench_storage,
    device_limits,
    loader_cases,
    op_cases,
    op_on_cuda,
    profile_op,
)
from benchmarks.baselines import by_gather, by_grid_sample
from benchmarks.cuda_device import Call, median_seconds
from benchmarks.pillow import RECIPES
from cuda_sifa import reference
from datasets import decoders
from tests.op.cases import Case, relative_error


def test_the_forms_of_the_block_agree() -> None:
    x, offset = op_cases.inputs((1, 3, 8, 5), "sub-pixel", torch.float32, "cpu")
    assert offset is not None
    for one, other in zip(bench_block.with_ops(x, offset), bench_block.plain(x, offset), strict=True):
        assert relative_error(one, other) < 1e-6
    for backward in (False, True):
        bench_block.passes(bench_block.with_ops, (1, 3, 8, 5), torch.float32, backward=backward)()


@pytest.mark.parametrize("function", [by_gather, by_grid_sample])
@pytest.mark.parametrize("offset", [1.0, None])
def test_the_baselines_are_the_op(function: Callable, offset: float | None) -> None:
    x, field = Case(offset=offset).inputs(torch.float32)
    assert relative_error(function(x, field), reference.inter_frame_attention(x, field)) < 1e-5


class Host:
    """The host as a device: its times and memory sizes mean nothing, the rest works as with a GPU."""

    type, name, cache = "cpu", "a host", 2**14

    def seconds(self, calls: Sequence[Call], issue: float) -> float:
        began = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - began

    def peak(self, call: Call) -> int:
        call()
        return 2**20

    def wait(self) -> None:
        pass


def test_a_time_is_that_of_a_call_in_the_middle_series() -> None:
    spans = [8.0, 2.0, 4.0, 100.0, 6.0]

    class Slow(Host):
        def seconds(self, calls: Sequence[Call], issue: float) -> float:
            return spans.pop()

    calls = [0, 0]

    def call(i: int) -> None:
        calls[i] += 1

    assert median_seconds(Slow(), [lambda: call(0), lambda: call(1)], 0.0) == 3.0
    assert calls == [3, 3], "two rounds to warm up, one to see how long the host takes"


def test_the_ops_table_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line is there, with its floor; a formulation that does not fit in memory is named and no crash."""

    def too_large(*_: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(op_on_cuda, "by_grid_sample", too_large)
    monkeypatch.setattr(op_on_cuda.torch, "compile", lambda function, dynamic: function)
    out = tmp_path / "results/gpu.md"
    results = op_on_cuda.measure(
        Host(), {"tiny": (2, 3, 8, 5), "other": (1, 2, 4, 3)}, only="tiny", seconds=0.0, alone=False, out=out
    )
    table = [line for line in out.read_text().splitlines() if line.startswith("| tiny")]
    assert len(table) == len(results) == 2 * 3 * 3, "two types, three kinds of offsets, three passes"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert {len(row) for row in cells} == {op_on_cuda.HEAD.splitlines()[0].strip("|").count("|") + 1}
    with_others = [row for row in cells if row[9]]
    assert [row[1:4] for row in with_others] == [["sub-pixel", "float32", "both"], ["sub-pixel", "bfloat16", "both"]]
    assert all(row[9].endswith("out of memory: grid_sample") and float(row[10]) > 0 for row in with_others)

    x, offset = 2 * 3 * 8 * 25, 2 * 2 * 18 * 25
    moved = {"forward": 2 * x + offset, "backward": 3 * x + 2 * offset}
    first = {result.direction: result.floor for result in results[:3]}
    assert first["backward"] / first["forward"] == pytest.approx(moved["backward"] / moved["forward"])
    assert first["both"] == pytest.approx(first["forward"] + first["backward"])
    halves = {result.direction: result.floor for result in results[9:12]}
    assert halves["both"] == pytest.approx(first["both"] / 2)
    assert "- float32 forward: " in out.read_text()
    assert re.search(r"^- bfloat16 both: .* wanted 3$", out.read_text(), re.M)


def test_inputs_take_turns_beyond_the_cache() -> None:
    for shape in ((2, 3, 8, 5), (2, 3, 64, 20)):
        sets = op_on_cuda.inputs_beyond_the_cache(Host(), shape, "sub-pixel", torch.float32)
        assert len(sets) >= 2
        assert sum(op_on_cuda.bytes_of(*one) for one in sets) >= op_on_cuda.CACHES * Host.cache
        assert not torch.equal(sets[0][0], sets[1][0])


def test_the_networks_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.md"
    out.write_text("what was measured before\n")
    sizes = bench_network.Sizes(batch=2, frames=8, size=16, width=4)
    bench_network.measure(Host(), ["op", "grid_sample"], sizes, 0.0, out)
    before, *lines = out.read_text().splitlines()
    assert before == "what was measured before"
    rows = {line.split(" | ")[0]: line.strip("|").split(" | ") for line in lines if re.match(r"\| (op|grid|ref)", line)}
    assert list(rows) == ["| op", "| grid_sample"]
    assert {len(row) for row in rows.values()} == {6}
    assert 0 < float(rows["| op"][4].removesuffix(" %")) < 100
    assert not rows["| grid_sample"][4].strip(), "the op does not run there"


def test_the_ops_share_counts_what_it_starts_and_no_annotation() -> None:
    def event(
        name: str, kind: DeviceType, total: float, own: float, annotation: bool = False, caller: Any = None
    ) -> Any:
        return SimpleNamespace(
            name=name,
            cpu_parent=caller,
            device_type=kind,
            device_time_total=total,
            self_device_time_total=own,
            is_user_annotation=annotation,
        )

    with_gradient = event("sifa::inter_frame_attention", DeviceType.CPU, 30, 0)
    function = event("InterFrameAttention", DeviceType.CPU, 30, 0, caller=with_gradient)
    events = [
        with_gradient,
        function,
        event("sifa::inter_frame_attention", DeviceType.CPU, 30, 25, caller=function),
        event("aten::zero_", DeviceType.CPU, 5, 5),
        event("sifa::forward_kernel", DeviceType.CUDA, 25, 25),
        event("fill", DeviceType.CUDA, 5, 5),
        event("gemm", DeviceType.CUDA, 70, 70),
        event("Optimizer.step", DeviceType.CUDA, 900, 900, annotation=True),
    ]
    assert bench_network.share(events, "device") == pytest.approx(0.3)
    assert bench_network.share(events[3:], "device") is None


def test_a_gpu_is_measured_with_nothing_but_pytorch_around() -> None:
    """As on a machine where no package can be installed."""
    absent = ("yaml", "cv2", "pydantic", "lmdb", "tqdm", "tensorboard", "matplotlib", "onnx", "triton", "pytest")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); import benchmarks.bench_op, benchmarks.bench_network"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


Main = Callable[[list[str]], int]
GPU_TOOLS = (bench_network, device_limits, profile_op)


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (bench_op.main, ["--device=cuda"], "--device cuda: PyTorch sees no GPU"),
        (bench_op.main, ["--threads=0"], "--threads must be at least 1, got 0"),
        (bench_op.main, ["--only=nosuch"], "--only nosuch: there is no such shape, there are SIFA-Net res3, "),
        *((tool.main, [], "this is measured on a GPU, PyTorch sees none") for tool in GPU_TOOLS),
    ],
)
def test_mistakes_are_told_in_one_line(
    main: Main, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error.startswith(f"error: {message}")


def make_gpu(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    return subprocess.run(
        ["bash", "make.sh", "gpu", *arguments], capture_output=True, text=True, cwd=root, env=os.environ | environment
    )


STUB = """#!/usr/bin/env bash
# Stands for Python on a machine with a GPU: notes its arguments, and writes what a measurement writes.
case $1 in
  -) cat >/dev/null; [[ -f $NOTES ]] && echo tests/op/test_values.py || echo a-gpu ;;
  -c) ;;
  *) echo "$*" >>"$NOTES"
     [[ $* != *"$FAILS"* ]] || exit 1
     while [[ $# -gt 0 ]]; do [[ $1 != --out ]] || echo figures >"$2"; shift; done ;;
esac
"""


def rehearse(folder: Path, *parts: str, fails: str = "nothing") -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """`make.sh gpu` with a stub as Python: what it printed, and the commands that it ran."""
    stub, notes = folder / "python", folder / "notes"
    stub.write_text(STUB)
    stub.chmod(0o755)
    done = make_gpu(
        "--out",
        f"{folder}/out",
        *parts,
        SIFA_NO_VENV="1",
        PYTHON=str(stub),
        NOTES=str(notes),
        FAILS=fails,
    )
    return done, notes.read_text().splitlines() if notes.exists() else []


def test_make_gpu_measures_first_and_tests_afterwards(tmp_path: Path) -> None:
    done, commands = rehearse(tmp_path, "first")
    assert done.returncode == 0, done.stderr
    kinds = [re.sub(r"-m |benchmarks\.| .*| *cuda_sifa/", "", command.replace("-m ", "")) for command in commands]
    assert kinds == ["setup.py", "pytest", "bench_op", "bench_network", "device_limits", "profile_op", "pytest"]
    assert "tests/op/test_golden.py" in commands[1]
    assert "--alone" in commands[2]
    for part in ("op", "network", "limits", "profile"):
        assert (tmp_path / "out" / f"{part}.md").read_text() == "figures\n"
    assert (tmp_path / "out/test.log").exists()


def test_make_gpu_measures_no_op_that_is_wrong(tmp_path: Path) -> None:
    done, commands = rehearse(tmp_path, "golden", "op", fails="test_golden.py")
    assert (done.returncode, len(commands)) == (2, 1)
    assert done.stderr.endswith("golden.log; nothing is measured\n")


def test_make_gpu_goes_on_after_a_part_that_fails(tmp_path: Path) -> None:
    done, commands = rehearse(tmp_path, "op", "limits", fails="bench_op")
    assert (done.returncode, len(commands)) == (2, 2)
    assert done.stderr == f"make.sh: failed: op, see the logs in {tmp_path}/out\n"


def test_make_gpu_knows_its_parts(tmp_path: Path) -> None:
    done, commands = rehearse(tmp_path, "everything")
    assert (done.returncode, commands) == (2, [])
    assert done.stderr.startswith("make.sh: unknown part everything; there are first (build golden op ")


def test_the_kernels_of_a_call_are_listed() -> None:
    table = list(profile_op.lines("cpu", {"tiny": (1, 2, 8, 4)}))
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    assert {row[1] for row in rows} == {"float32", "bfloat16"}
    assert any(row[2].startswith("sifa::inter_frame_attention") and float(row[3]) >= 1 for row in rows)


def test_the_limits_of_a_device() -> None:
    text = device_limits.report(Host())
    assert re.search(r"^- memory: [\d.]+ TB/s", text, re.M)
    assert re.search(r"^- reductions: [\d.]+ G float32 values/s", text, re.M)


def test_make_gpu_says_in_one_line_that_pytorch_sees_none() -> None:
    done = make_gpu(SIFA_NO_VENV="1", PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("make.sh: PyTorch cannot use a GPU: ")


@pytest.mark.skipif(
    any(map(os.path.exists, ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/dxg"))), reason="there is a driver"
)
def test_make_gpu_looks_for_one_before_it_installs_anything() -> None:
    done = make_gpu(SIFA_NO_VENV="0", PYTHON="false")  # which would stop any installation
    expected = "make.sh: there is no GPU here: no NVIDIA driver is loaded\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_formats_are_measured_where_their_packages_are() -> None:
    """After plain make.sh they are not: the help is there, and a measurement says what to install."""
    code = """
import sys
sys.modules.update(dict.fromkeys(("onnx", "onnxruntime", "onnxscript")))
from benchmarks import bench_deploy
sys.exit(bench_deploy.main(sys.argv[1:]))
"""
    run = partial(subprocess.run, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run([sys.executable, "-c", code, "--help"]).returncode == 0
    done = run([sys.executable, "-c", code, "--config_file=settings/demo.yml"])
    assert (done.returncode, done.stderr) == (2, "error: onnx is missing: pip install onnx onnxscript onnxruntime\n")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to a core here")
def test_the_loaders_benchmark_reports_every_recipe_and_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [
        "--clips=8",
        "--rounds=1",
        "--samples=16",
        "--workers",
        "1",
        "--length=2",
        "--crop=16",
        "--size",
        "24",
        "32",
    ]
    bench_loader.main([*tiny, f"--out={tmp_path}/loader.md"])
    text = (tmp_path / "loader.md").read_text()
    assert capsys.readouterr().out == text
    for recipe in RECIPES:
        assert len(re.findall(rf"^\| {re.escape(recipe)} \|", text, re.M)) == 3, "speed, stages, grey levels"
    # A stage whose function is gone, or no longer called, would leave its column empty.
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| jitter and blur")]
    times = dict(zip([*bench_loader.STAGES, "rest"], rows[1][1:], strict=False))
    assert {stage for stage, cell in times.items() if cell.strip()} == {*bench_loader.STAGES, "rest"} - {"RandAugment"}
    assert re.search(r"^8: \d+, 16: \d+$", text, re.M), "memory"


def test_a_recipe_has_the_greys_of_the_reference(tmp_path: Path) -> None:
    loader_cases.write_clips(tmp_path / "frames", 6, 1, 48, 60)
    loader_cases.write_list(tmp_path / "frames", tmp_path / "list.txt", 1)
    found = loader_cases.agreement(loader_cases.Clips(tmp_path / "frames", tmp_path / "list.txt", 1, 32), 100)
    for recipe, (mean, deviation, other_mean, other_deviation, difference) in found.items():
        assert mean == pytest.approx(other_mean, abs=0.5), recipe
        assert deviation == pytest.approx(other_deviation, abs=0.5), recipe
        assert difference < 1.5, recipe


def test_a_folder_without_frames_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, message in ((tmp_path, "has no folder with 16 frames"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SystemExit) as caught:
            bench_loader.main([f"--frames={folder}"])
        error = capsys.readouterr().err
        assert (caught.value.code, error.count("\n")) == (2, 1)
        assert error.startswith("error: ")
        assert message in error


def test_every_storage_format_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp", reason="shards over HTTP need it")
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: None)
    monkeypatch.setattr(bench_storage, "SIZE", (40, 56))
    report = tmp_path / "report.md"
    assert bench_storage.main(["--videos=2", "--length=72", "--rounds=1", f"--out={report}"]) == 0
    rows = re.findall(r"^\| (\S+).* \| [0-9.]+ \| [0-9.]+ \|$", report.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(2 * ["FRAME", "LMDB", "PACKED", "SHARDS", "SHARDS"])


def test_the_report_of_the_decoders_is_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("ffmpeg") or decoders.choose_decoder() == "opencv":
        pytest.skip("there is no command ffmpeg to encode with, or no torchcodec")
    options = ["--videos=1", "--frames=24", "--size", "32", "32", "--length=2", "--distances", "5"]
    options += ["--clips=2", "--rounds=2"]
    bench_decoders.main([*options, f"--out={tmp_path / 'report.md'}"])
    report = (tmp_path / "report.md").read_text()
    assert capsys.readouterr().out == report
    rows = [line.split(" | ") for line in report.splitlines() if re.match(r"\| (VIDEO|FRAME)", line)]
    assert [row[0] for row in rows] == ["| VIDEO, opencv", "| VIDEO, torchcodec", "| FRAME"]
    assert rows[0][-1] == "1.00 |"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):
        bench_decoders.main(options)
