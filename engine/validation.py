"""Validation while a network trains, and the multi-view test of a trained one."""

import logging
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import nn

from engine.build import build_dataset, build_loader
from engine.distributed import Process, VideoShare, gather, is_sharded
from engine.files import digest
from engine.loops import AMP, evaluate, score_videos
from engine.metrics import Metrics, place_of_label
from engine.record import Record
from engine.schema import Config
from engine.scores import Scores, middle_view, save_scores
from engine.stopping import Stopped, StopSignals
from engine.view_scores import ScoreParts

log = logging.getLogger("sifa")

SECONDS_BETWEEN_LINES = 30

# Keys that may change while a test is broken off.
_WITHOUT_EFFECT = {
    "dataset": ("num_workers", "root_path", "list_file", "eva_root_path", "eva_list_file"),
    "evaluation": ("batch_size", "eva_inter_freq"),
    "execution": ("timeout", "compile", "channels_last", "strategy"),
}


class Validation:
    """The validation videos of a configuration, which all processes share."""

    def __init__(self, config: Config, process: Process, signals: StopSignals) -> None:
        self.config, self.process, self.signals = config, process, signals
        self.data = build_dataset(config, train=False)
        self.share = VideoShare(range(len(self.data.videos)), self.data.views, process)
        self.loader = build_loader(self.data, self.share, config.evaluation.batch_size, config, process)
        self.amp = AMP[config.execution.amp]

    @property
    def views(self) -> str:
        return f"({len(self.data.videos)} videos, {self.data.num_clips} clips x {self.data.num_crops} crops)"

    def metrics(self, model: nn.Module, record: Record, epoch: int, split: str) -> Metrics:
        """Scores every video once, and records the figures; the same ones on every process."""
        labels = [video.label for video in self.data.videos]
        with record.bar("validation", len(self.share)):
            metrics = evaluate(
                model,
                self.loader,
                self.process,
                labels=labels,
                views=self.data.views,
                amp=self.amp,
                report=_Lines("validation", record),
                check=self._check,
            )
        record.metrics(epoch, split, metrics)
        log.info(f"{metrics.line()}  {self.views}")
        if split == "val" and self.config.logging.pictures and not is_sharded(model):
            record.attention(model, self.data, self.process.device, epoch)
        return metrics

    def test(self, model: nn.Module, record: Record, classes: list[str], epoch: int, of: dict[str, str]) -> None:
        """Scores every view of every video into output_dir/scores.npz, and records the figures of one view and of all.

        Args:
            classes: their names, or none.
            epoch: that the network was trained for.
            of: what tells this network from others: a test that was killed goes on if it is the same.
        """
        data, config = self.data, self.config.dataset
        parts = ScoreParts(
            Path(self.config.output_dir) / "scores.parts",
            {**of, **self._identity()},
            self.process,
        )
        left = [video for video in range(len(data.videos)) if video not in parts.done]
        if parts.done:
            log.info(f"{len(parts.done)} of {len(data.videos)} videos are scored already")
        self.share.mine = left[self.process.rank :: self.process.world]
        try:
            with record.bar("test", len(self.share)):
                score_videos(
                    model,
                    self.loader,
                    self.process,
                    views=data.views,
                    amp=self.amp,
                    keep=parts.keep,
                    report=_Lines("test", record),
                    check=self._check,
                )
        finally:
            parts.write()
        gather(None)  # until all have written
        if not self.process.is_main:
            return
        probabilities, losses = parts.collect(len(data.videos))
        scores = Scores(
            videos=[video.path for video in data.videos],
            labels=torch.tensor([video.label for video in data.videos]).numpy(),
            probabilities=probabilities,
            classes=classes or [str(i) for i in range(config.num_classes)],
            clips=data.num_clips,
            crops=data.num_crops,
            list_file=config.eva_list_file,
            root_path=config.eva_root_path or config.root_path,
            format=config.format,
            frame_template=config.frame_template,
            first_frame=config.first_frame,
        )
        path = Path(self.config.output_dir) / "scores.npz"
        save_scores(path, scores)
        parts.remove()
        labels = torch.from_numpy(scores.labels)
        middle = middle_view(data.num_clips, data.num_crops)
        for split, chosen, name in (
            ("test of one view", slice(middle, middle + 1), "(the middle clip's middle crop alone)"),
            ("test", slice(None), self.views),
        ):
            mean = torch.from_numpy(probabilities[:, chosen]).mean(1)
            metrics = Metrics.of(torch.from_numpy(losses[:, chosen]).mean(1), place_of_label(mean, labels))
            record.metrics(epoch, split, metrics)
            log.info(f"{metrics.line()}  {name}")
        log.info(f"{path}: python -m tools.report {path} makes a page of it")

    def _identity(self) -> dict[str, object]:
        """What the scores of a view depend on, but for the checkpoint."""
        config = self.config.model_dump(include={"dataset", "evaluation", "network", "SIFA", "execution"}, mode="json")
        for section, keys in _WITHOUT_EFFECT.items():
            for key in keys:
                del config[section][key]
        config["list"] = digest(self.config.dataset.eva_list_file)
        return config

    def _check(self) -> None:
        # The others were asked as well, or will miss this process at the end; there is nothing to save.
        if self.signals.received is not None:
            raise Stopped


class _Lines:
    """A line of the log now and then, with the time that is left; the bar where there is one."""

    def __init__(self, title: str, record: Record) -> None:
        self.title, self.record = title, record
        self.began = self.shown = time.monotonic()
        self.done = 0

    def __call__(self, done: int, of: int) -> None:
        self.record.advance(done - self.done)
        self.done = done
        now = time.monotonic()
        if now - self.shown > SECONDS_BETWEEN_LINES:
            self.shown = now
            left = timedelta(seconds=round((now - self.began) / done * (of - done)))
            log.info(f"{self.title}  {done}/{of} views of this process  left {left}")
