"""The scores of a long test, written as they are computed, so that a test that was killed can continue."""

import json
import logging
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.errors import OneProcessError, UserError, describe
from common.files import atomic_write
from engine.distributed import Process, all_gather

log = logging.getLogger("sifa")

SECONDS_BETWEEN_PARTS = 60


class PartialScores:
    """Files with the scores of some videos each, in a folder that all processes share.

    Args:
        folder: is made if it does not exist. Files of another test in it are deleted.
        test: what the scores depend on, as plain values: checkpoint, list, views.
        defaults: of keys in sections of `test` that did not exist when earlier files were written.
        process: this process.

    Attributes:
        done: numbers of the videos that are scored already.
    """

    def __init__(self, folder: Path, test: dict[str, Any], process: Process, *, defaults: dict[str, Any]) -> None:
        self.folder, self.process = folder, process
        if process.is_main:
            self._start(test, defaults)
        all_gather(None)  # until rank 0 has looked
        self.done = {int(video) for part in self._parts() for video in part["videos"]}
        self._count = len(list(folder.glob("*.npz")))
        all_gather(None)  # until all have looked
        self._scores: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._written = time.monotonic()

    def _start(self, test: dict[str, Any], defaults: dict[str, Any]) -> None:
        header, text = self.folder / "test.json", json.dumps(test, sort_keys=True)
        if header.exists() and not _is_same_test(header.read_text(encoding="utf-8"), json.loads(text), defaults):
            log.info(f"{self.folder} is of another test: the scores are computed again")
            self.remove()
        with atomic_write(header) as file:
            file.write(text.encode())

    def keep(self, video: int, scores: Tensor, losses: Tensor) -> None:
        """Adds the scores (views, classes) and losses (views,) of a video; writes them to the disk once a minute."""
        self._scores[video] = scores.numpy(), losses.numpy()
        if time.monotonic() - self._written > SECONDS_BETWEEN_PARTS:
            self.write()

    def write(self) -> None:
        """Writes the scores that are not on the disk yet.

        Raises:
            OneProcessError: the disk is full or the folder not writable.
        """
        self._written = time.monotonic()
        if not self._scores:
            return
        self._count += 1
        path = self.folder / f"{self._count:05d}-{self.process.rank}.npz"
        try:
            with atomic_write(path) as file:
                np.savez(
                    file,
                    videos=np.array(list(self._scores)),
                    scores=np.stack([scores for scores, _ in self._scores.values()]),
                    losses=np.stack([losses for _, losses in self._scores.values()]),
                )
        except OSError as error:
            raise OneProcessError(f"{path} cannot be written: {describe(error)}") from None
        self._scores.clear()

    def collect(self, videos: int) -> tuple[np.ndarray, np.ndarray]:
        """All scores on the disk: probabilities (videos, views, classes) and losses (videos, views)."""
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


def _is_same_test(written: str, test: dict[str, Any], defaults: dict[str, Any]) -> bool:
    try:
        before = json.loads(written)
    except ValueError:
        return False
    if not isinstance(before, dict):
        return False
    for name, section in test.items():
        if isinstance(section, dict) and isinstance(before.get(name), dict):
            known = defaults.get(name, {})
            before[name] = {key: known[key] for key in section if key in known} | before[name]
    return bool(before == test)
