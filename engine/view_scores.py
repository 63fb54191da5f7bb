"""The scores of a long test, kept as they come, so that a test that was killed goes on where it stopped."""

import json
import logging
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
from torch import Tensor

from engine.distributed import Process, gather
from engine.errors import OneProcessError, UserError
from engine.files import written_whole

log = logging.getLogger("sifa")

SECONDS_BETWEEN_PARTS = 60


class ScoreParts:
    """Files of scores of some videos each, in a folder that all processes share.

    Args:
        folder: made if it is not there. What lies there of another test is thrown away.
        test: what makes one test another than the next, as plain values: checkpoint, list, views.
        process: this process.

    Attributes:
        done: numbers of the videos that are scored already.
    """

    def __init__(self, folder: Path, test: dict[str, object], process: Process) -> None:
        self.folder, self.process = folder, process
        if process.is_main:
            self._start(json.dumps(test, sort_keys=True))
        gather(None)  # until rank 0 has looked
        self.done = {int(video) for part in self._parts() for video in part["videos"]}
        self._count = len(list(folder.glob("*.npz")))
        gather(None)  # until all have looked
        self._scores: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._written = time.monotonic()

    def _start(self, test: str) -> None:
        header = self.folder / "test.json"
        if header.exists() and header.read_text(encoding="utf-8") != test:
            log.info(f"{self.folder} is of another test: it starts anew")
            self.remove()
        with written_whole(header) as file:
            file.write(test.encode())

    def keep(self, video: int, scores: Tensor, losses: Tensor) -> None:
        """Takes in the scores (views, classes) and losses (views,) of a video; writes them now and then."""
        self._scores[video] = scores.numpy(), losses.numpy()
        if time.monotonic() - self._written > SECONDS_BETWEEN_PARTS:
            self.write()

    def write(self) -> None:
        """Writes what was not written yet.

        Raises:
            OneProcessError: the disk is full or the folder not writable.
        """
        self._written = time.monotonic()
        if not self._scores:
            return
        self._count += 1
        path = self.folder / f"{self._count:05d}-{self.process.rank}.npz"
        try:
            with written_whole(path) as file:
                np.savez(
                    file,
                    videos=np.array(list(self._scores)),
                    scores=np.stack([scores for scores, _ in self._scores.values()]),
                    losses=np.stack([losses for _, losses in self._scores.values()]),
                )
        except OSError as error:
            raise OneProcessError(f"{path} cannot be written: {error}") from None
        self._scores.clear()

    def collect(self, videos: int) -> tuple[np.ndarray, np.ndarray]:
        """All that was written: probabilities (videos, views, classes) and losses (videos, views)."""
        parts = list(self._parts())
        order = np.concatenate([part["videos"] for part in parts])
        if sorted(set(order.tolist())) != list(range(videos)):
            raise UserError(f"{self.folder} has the scores of {len(set(order.tolist()))} of {videos} videos")
        scores = np.empty((videos, *parts[0]["scores"].shape[1:]), dtype=np.float32)
        losses = np.empty((videos, *parts[0]["losses"].shape[1:]))
        for part in parts:
            scores[part["videos"]], losses[part["videos"]] = part["scores"], part["losses"]
        return scores, losses

    def _parts(self) -> list[dict[str, np.ndarray]]:
        parts = []
        for path in sorted(self.folder.glob("*.npz")):
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    parts.append({name: arrays[name] for name in ("videos", "scores", "losses")})
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
                log.warning(f"{path} cannot be read: its videos are scored again")
        return parts

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
