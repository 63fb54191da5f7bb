"""Compares the forms in which SIFA-Net computes predictions (`sifa.load(..., form=...)`), one clip or many at a time.

    git worktree add /tmp/before 24f122d
    (cd /tmp/before; SIFA_WITH_CUDA=0 python cuda_sifa/setup.py build_ext --inplace)
    python -m benchmarks.bench_inference --before /tmp/before --out benchmarks/results/inference-cpu.md

Each form is in a process of its own; they take turns. "as trained" keeps BatchNorm. A ratio is the median over the
turns, to the first row. Weights and clips are random. Needs `pip install onnx onnxscript onnxruntime`.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.turns import Worker, conditions, peak_memory, ratio, run, seconds, take_turns

#: name -> width, frames, size, clips at once, calls of a turn
CASES = {
    "paper, 1 clip": (64, 16, 224, 1, 1),
    "demo, 1 clip": (16, 8, 64, 1, 10),
    "demo, 16 clips": (16, 8, 64, 16, 1),
}
BEFORE = "before, as trained"
FORMS = ("as trained", "eager", "compiled", "onnx")
CALL: list[Callable[[], object]] = []  # of this process, once it is built


def answer(command: str, *words: Any) -> Any:
    """In a worker: what a command asks for."""
    if command == "build":
        form, case, threads = words
        torch.set_num_threads(threads)
        began = time.perf_counter()
        CALL[:] = [call_of(form, case, threads)]
        CALL[0](), CALL[0]()  # compiles, allocates
        return time.perf_counter() - began
    return seconds(CALL[0], *words) if command == "turn" else peak_memory()


def call_of(form: str, case: str, threads: int) -> Callable[[], object]:
    from models import build_model

    width, frames, size, clips, _ = CASES[case]
    torch.manual_seed(0)
    network: Any = build_model("c2d_sifa_resnet50", num_classes=400, clip_length=frames, width=width).eval()
    batch = torch.randn(clips, frames, size, size, 3).permute(0, 4, 1, 2, 3)
    run: Any = network
    if form != BEFORE:
        from sifa.forms import build_form

        fold = form != "as trained"
        name: Any = form if fold else "eager"
        shape = (frames, size, size)
        run = build_form(network, name, shape, threads=threads, dtype=torch.float32, fold=fold).run

    @torch.inference_mode()
    def call() -> object:
        return run(batch)

    return call


def measure(case: str, before: Path | None, forms: list[str], threads: int, turns: int) -> str:
    """The table of a case."""
    *_, clips, repeat = CASES[case]
    workers = {BEFORE: Worker("benchmarks.bench_inference", before)} if before else {}
    workers |= {form: Worker("benchmarks.bench_inference") for form in forms}
    ready = {form: worker.ask("build", form, case, threads) for form, worker in workers.items()}
    times = take_turns(workers, dict.fromkeys(workers, turns), "turn", repeat)
    memory = {form: worker.ask("memory") for form, worker in workers.items()}
    for worker in workers.values():
        worker.close()
    first = next(iter(times.values()))
    lines = [f"## {case}\n", "| form | ms a clip | ratio | ready after, s | peak memory, MB |\n|---|---|---|---|---|"]
    for form, own in times.items():
        per_clip = 1e3 * statistics.median(own) / clips
        lines.append(f"| {form} | {per_clip:.1f} | {ratio(own, first):.2f} | {ready[form]:.0f} | {memory[form]:.0f} |")
    return "\n".join([*lines, ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier state, for the first row")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    args = parser.parse_args(argv)
    text = f"# Forms of SIFA-Net in inference\n\n{conditions(args.threads)}. Medians of {args.turns} turns.\n"
    print(text)
    for case in args.cases:
        table = measure(case, args.before, args.forms, args.threads, args.turns)
        print(table, flush=True)
        text += "\n" + table
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main, answer)
