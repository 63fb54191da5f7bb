"""The same settings over several seeds: one run for each, side by side or one after another, and their mean."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from common.cli import cores
from common.errors import UserError
from common.files import make_folder
from engine.config import as_change, dump_config, load_config
from engine.scores import SCORES, Scores, load_scores
from engine.statistics import bootstrap_mean, mean_of_runs
from sifa.flat_settings import flat_settings, read_settings
from sifa.tables import Table

SCRIPT = Path(__file__).resolve().parents[1] / "train_val_3d.py"
WITHOUT_EFFECT = ("output_dir", "seed", "dataset.num_workers")  # settings that two runs of one comparison may differ in


@dataclass(frozen=True)
class SeedOptions:
    """Which runs are made.

    Args:
        config_file: of all runs.
        out: folder; the run of seed 3 is in out/seed_3, its console output in out/seed_3.log.
        seeds: one run for each.
        changes: of --set.
        parallel: runs at a time.
        nproc: processes of a run; with more than one torchrun starts them.
    """

    config_file: str
    out: Path
    seeds: Sequence[int]
    changes: Sequence[str] = ()
    parallel: int = 1
    nproc: int = 1

    def folder(self, seed: int) -> Path:
        return self.out / f"seed_{seed}"


def run_seeds(options: SeedOptions, say: Callable[[str], None]) -> list[int]:
    """Trains and tests with every seed. Runs that are done are left as they are, others resume.

    Args:
        options: which runs.
        say: gets a line when a run begins or ends.

    Returns:
        The seeds whose run failed.

    Raises:
        UserError: the settings are wrong, or a run in this folder has other settings.
    """
    waiting = [seed for seed in options.seeds if not _is_done(options, seed)]
    for seed in options.seeds:
        if seed not in waiting:
            say(f"seed {seed}: done before, {options.folder(seed)}")
    make_folder(options.out)
    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}  # by place: the seed and its process
    failed: list[int] = []
    try:
        while waiting or running:
            for place in set(range(options.parallel)) - running.keys():
                if waiting:
                    seed = waiting.pop(0)
                    say(f"seed {seed}: {options.folder(seed)}.log")
                    running[place] = seed, _start(options, seed, place)
            for place, (seed, process) in list(running.items()):
                if (code := process.poll()) is not None:
                    del running[place]
                    failed += [seed] if code else []
                    say(f"seed {seed}: {_end(options, seed, code)}")
            time.sleep(0.2)
    finally:
        for _, process in running.values():
            process.terminate()  # it saves, and the same command continues it
        for _, process in running.values():
            process.wait()
    return failed


def _is_done(options: SeedOptions, seed: int) -> bool:
    """Whether the run of a seed has its scores. Raises UserError if it has begun with other settings."""
    folder = options.folder(seed)
    config = load_config(options.config_file, [*options.changes, *_own(options, seed)])
    if not (folder / "config.yml").is_file():
        return False
    before, now = read_settings(folder / "config.yml"), flat_settings(yaml.safe_load(dump_config(config)))
    names = [key for key in now if before.get(key) != now[key] and key not in WITHOUT_EFFECT]
    if names:
        changes = ", ".join(f"{name} {before.get(name)} -> {now[name]}" for name in names[:5])
        raise UserError(f"{folder} is a run with other settings ({changes}): give another --out, or remove it")
    return (folder / SCORES).is_file()


def _own(options: SeedOptions, seed: int) -> list[str]:
    return [as_change("output_dir", options.folder(seed)), as_change("seed", seed)]


def _start(options: SeedOptions, seed: int, place: int) -> "subprocess.Popen[bytes]":
    """Starts the run of a seed; runs side by side have GPUs, or cores, of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={options.nproc}"]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup; torchrun would end with the terminal
        launcher.append("--signals-to-handle=SIGTERM,SIGINT")
    command = [sys.executable, *(launcher if options.nproc > 1 else []), str(SCRIPT)]
    command += [f"--config_file={options.config_file}", "--resume=auto", "--then_test"]
    command += ["--set", *options.changes, *_own(options, seed)]
    environment = dict(os.environ)
    devices = torch.cuda.device_count()
    if options.parallel > 1 and devices >= options.parallel * options.nproc:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible[place * options.nproc : (place + 1) * options.nproc])
    if options.parallel * options.nproc > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // (options.parallel * options.nproc))))
    with open(options.out / f"seed_{seed}.log", "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _end(options: SeedOptions, seed: int, code: int) -> str:
    if code:
        lines = (options.out / f"seed_{seed}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return f"exit code {code}: {lines[-1] if lines else 'no output'}"
    return f"top-1 {_top1(load_scores(options.folder(seed))):.2f}"


def _top1(scores: Scores) -> float:
    return float(100 * (scores.ranks(scores.of_all_views()) == 0).mean())


def finished_scores(options: SeedOptions) -> dict[int, Scores]:
    """The scores of the runs that are done, by seed."""
    folders = {seed: options.folder(seed) for seed in options.seeds}
    return {seed: load_scores(folder) for seed, folder in folders.items() if (folder / SCORES).is_file()}


def seed_table(results: dict[int, Scores]) -> Table:
    """Top-1 of each seed by the mean of all views, their mean and its intervals.

    Raises:
        UserError: the runs are of different videos.
    """
    rows = []
    for seed, scores in results.items():
        low, high = scores.interval(round(_top1(scores) * len(scores.videos) / 100))
        rows.append([str(seed), f"{_top1(scores):.2f}", f"{low:.1f} to {high:.1f}"])
    if len(results) > 1:
        rows += list(_mean_rows(list(results.values())))
    first = next(iter(results.values()))
    note = f"{len(first.videos)} videos, {first.clips} clips x {first.crops} crops."
    if len(results) > 1:
        note += (
            " The interval of one seed is Wilson's, for other videos; that of the seeds is Student's, for the mean of "
            "many more seeds on these videos; that of seeds and videos is the bootstrap's, for other videos as well."
        )
    return Table("", ["seed", "top-1, %", "95 % interval"], rows, note)


def _mean_rows(runs: Sequence[Scores]) -> Iterator[list[str]]:
    if any(scores.videos != runs[0].videos for scores in runs):
        raise UserError("the runs are of different videos: their mean has no meaning")
    seeds = mean_of_runs([_top1(scores) for scores in runs])
    both = bootstrap_mean(np.stack([(s.ranks(s.of_all_views()) == 0).astype(float) for s in runs]))
    yield ["mean, seeds", f"{seeds.value:.2f}", f"{max(seeds.low, 0):.1f} to {min(seeds.high, 100):.1f}"]
    yield ["mean, seeds and videos", f"{100 * both.value:.2f}", f"{100 * both.low:.1f} to {100 * both.high:.1f}"]
