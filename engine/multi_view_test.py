"""The test of a trained network: scores of all views of all videos, which continues after a stop."""

import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.files import digest, is_url
from engine.distributed import all_gather
from engine.eval_loop import Validator, report_not_finite, score_videos
from engine.logger import RunLogger
from engine.metrics import Metrics, label_rank
from engine.partial_scores import PartialScores
from engine.schema import Config
from engine.scores import SCORES, Scores, middle_view, save_scores

log = logging.getLogger("sifa")

PARTS = "scores.parts"  # in output_dir

# Keys that do not change the scores of a view: a test may continue with other values.
_WITHOUT_EFFECT = {
    "dataset": (
        *("num_workers", "list_file", "eva_list_file", "shard_cache", "shard_cache_gb", "shard_window"),
        *("root_path", "eva_root_path"),  # the root is added below
    ),
    "evaluation": ("batch_size", "eva_inter_freq"),
    "execution": ("timeout", "compile", "channels_last", "strategy"),
}


def run_test(
    model: nn.Module, validator: Validator, logger: RunLogger, classes: list[str], epoch: int, checkpoint: str
) -> None:
    """Writes output_dir/scores.npz, and records the figures of the middle view and of all views.

    Args:
        model: the bare network.
        validator: of the videos.
        logger: of the run.
        classes: their names, or none.
        epoch: that the network was trained for.
        checkpoint: fingerprint of the weights; a test that was stopped continues only with the same ones.
    """
    config, data = validator.config, validator.data
    identity = {"checkpoint": checkpoint, **_identity(config)}
    folder, defaults = Path(config.output_dir) / PARTS, Config().model_dump(mode="json")
    parts = PartialScores(folder, identity, validator.process, defaults=defaults)
    if parts.done:
        log.info(f"{len(parts.done)} of {len(data.videos)} videos are scored already")
    validator.sampler.restrict([video for video in range(len(data.videos)) if video not in parts.done])
    try:
        with logger.bar("test", len(validator.sampler)):
            options = validator.scoring_options("test", logger)
            score_videos(model, validator.batches, validator.sampler, data, keep=parts.keep, **options)
    finally:
        parts.write()
    all_gather(None)  # until all have written
    if not validator.process.is_main:
        return
    probabilities, losses = parts.collect(len(data.videos))
    if not (finite := np.isfinite(probabilities).all((1, 2))).all():
        parts.remove()
        videos = [data.videos[video].path for video in np.flatnonzero(~finite).tolist()]
        report_not_finite(videos, len(data.videos), strict=True)
    scores = _scores(validator, probabilities, classes)
    path = Path(config.output_dir) / SCORES
    save_scores(path, scores)
    parts.remove()
    _record(scores, torch.from_numpy(losses), validator, logger, epoch)
    log.info(f"{path}: python -m tools.report {path.parent} makes a page of it")


def _scores(validator: Validator, probabilities: np.ndarray, classes: list[str]) -> Scores:
    data, config = validator.data, validator.config.dataset
    return Scores(
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


def _record(scores: Scores, losses: Tensor, validator: Validator, logger: RunLogger, epoch: int) -> None:
    """The figures of the middle view, and of the mean over all views.

    Args:
        losses: (videos, views), float64.
    """
    middle = middle_view(scores.clips, scores.crops)
    labels, probabilities = torch.from_numpy(scores.labels), torch.from_numpy(scores.probabilities)
    for split, views, name in (
        ("test of the middle view", slice(middle, middle + 1), "(the middle view: the middle crop of the middle clip)"),
        ("test", slice(None), validator.views),
    ):
        ranks = label_rank(probabilities[:, views].mean(1), labels)
        metrics = Metrics.of(losses[:, views].mean(1), ranks)
        logger.metrics(epoch, split, metrics)
        log.info(f"{metrics.line()}  {name}")


def _identity(config: Config) -> dict[str, object]:
    """All that the scores of a view depend on, but for the checkpoint."""
    identity = config.model_dump(include={"dataset", "evaluation", "network", "SIFA", "execution"}, mode="json")
    for section, keys in _WITHOUT_EFFECT.items():
        for key in keys:
            del identity[section][key]
    identity["list"] = digest(config.dataset.eva_list_file)
    root = config.dataset.eva_root_path or config.dataset.root_path
    identity["root"] = root if is_url(root) else os.path.realpath(root)
    return identity
