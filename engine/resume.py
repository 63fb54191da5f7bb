"""Which checkpoint a training resumes from, and whether it belongs to the same training."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

from engine.checkpoint import CheckpointError, checkpoint_file, newest_checkpoint, read_checkpoint
from engine.config import checkpoint_config
from engine.distributed import all_gather
from engine.run_dir import CHECKPOINTS
from engine.schema import Config
from engine.state import TrainState

log = logging.getLogger("sifa")

# Keys that do not change what is trained.
_WITHOUT_EFFECT = ("num_workers", "pretrained_model", "timeout", "shard_cache", "shard_cache_gb")
# They say which parameters share a state of the optimizer.
_PARAMETER_GROUPS = ("optimizer", "layer_multipliers", "decay_all")


class SavedRun(NamedTuple):
    """A checkpoint to resume from, and what was read from it."""

    path: Path
    contents: dict[str, Any]


def find_checkpoint(wanted: str | None, output_dir: Path, *, replaced: bool) -> tuple[SavedRun | None, list[str]]:
    """The checkpoint that a training resumes from. All processes must call it.

    Args:
        wanted: a path; "auto" for the newest in output_dir, if any; or None.
        output_dir: of the training.
        replaced: whether torchrun replaced lost processes: then it is the newest that they saved.

    Returns:
        The checkpoint, or None to start from the beginning; and a line for each damaged checkpoint that was skipped.

    Raises:
        CheckpointError: it cannot be read, or the processes find different ones.
    """
    saved: SavedRun | None = None
    skipped: list[str] = []
    if (replaced or wanted == "auto") and (found := newest_checkpoint(output_dir / CHECKPOINTS)):
        path, contents, skipped = found
        saved = SavedRun(path, contents)
    if saved is None and wanted not in (None, "auto"):
        path = checkpoint_file(Path(wanted))
        saved = SavedRun(path, read_checkpoint(path))
    progress = all_gather(saved and tuple(saved.contents.get(name) for name in ("epoch", "iteration")))
    if any(other != progress[0] for other in progress):
        raise CheckpointError(f"the processes find different checkpoints in {output_dir}: they must share it")
    return saved, skipped


def check_same_training(saved: SavedRun, config: Config, list_digest: str) -> None:
    """Refuses a checkpoint whose optimizer, or whose incomplete epoch, is that of another training.

    Args:
        saved: the checkpoint.
        config: of this training.
        list_digest: of its training list.

    Raises:
        CheckpointError: as above.
    """
    path, contents = saved
    saved_config = checkpoint_config(contents, path)
    for key in _PARAMETER_GROUPS:
        before, now = getattr(saved_config.optimization, key), getattr(config.optimization, key)
        if before != now:
            raise CheckpointError(
                f"checkpoint {path} is of a run with optimization.{key} {before}, this one has {now}: resume with the "
                "same, or start another training from it with --checkpoint"
            )
    if not contents.get("iteration"):
        return
    for name, was, is_now in (
        ("seed", saved_config.seed, config.seed),
        ("content of dataset.list_file", contents.get("list"), list_digest),
    ):
        if was not in (None, is_now):
            raise CheckpointError(
                f"checkpoint {path} is of the middle of an epoch, whose order another {name} changes ({was}, now "
                f"{is_now}): resume with the same"
            )


def changes_since(saved: SavedRun, config: Config, list_digest: str) -> list[str]:
    """What differs between a training and the one of a checkpoint: `key old -> new`."""
    before, now = checkpoint_config(saved.contents, saved.path).model_dump(), config.model_dump()
    sections = ("dataset", "transform", "evaluation", "network", "SIFA", "optimization", "execution")
    pairs = [(key, before[key], now[key]) for key in ("seed", "deterministic")]
    if "list" in saved.contents:
        pairs.append(("content of dataset.list_file", saved.contents["list"], list_digest))
    pairs += [
        (f"{section}.{key}", before[section][key], value)
        for section in sections
        for key, value in now[section].items()
        if key not in _WITHOUT_EFFECT
    ]
    return [f"{name} {was} -> {is_now}" for name, was, is_now in pairs if was != is_now]


def log_resume(saved: SavedRun | None, state: TrainState, config: Config, list_digest: str, *, asked: bool) -> None:
    """Says where a training resumes and what differs from before, or that there was nothing to resume.

    Args:
        saved: the checkpoint, which `state` has loaded, or None.
        state: of this training.
        config: of this training.
        list_digest: of its training list.
        asked: whether the user asked to resume.
    """
    if saved is None:
        if asked:
            log.info(f"no checkpoint in {Path(config.output_dir) / CHECKPOINTS}: training starts from the beginning")
        return
    within = f" and {state.iteration} iterations" if state.iteration else ""
    log.info(f"resumed from {saved.path} after epoch {state.epoch}{within}")
    if changed := changes_since(saved, config, list_digest):
        rate = state.optimizer.param_groups[0]["lr"]
        log.warning(
            f"other than before: {', '.join(changed)}; it holds from here on, with a learning rate of {rate:.3g}"
        )
