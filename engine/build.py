"""What a configuration describes: the network and the weights it starts from, datasets, loaders, class names."""

from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import models
from datasets.annotations import read_classes
from datasets.clips import CLIP_KEYS, ClipDataset, worker_init
from datasets.transforms import test_transform, train_transform
from engine.checkpoint import CheckpointError, entry, load_weights, read_checkpoint, weights
from engine.config import ConfigError
from engine.distributed import Process
from engine.schema import Config
from engine.stopping import ignore_stop_signals


def build_network(config: Config) -> models.Network:
    files = {"net_name", "pretrained_model", "imagenet_weights", "release_weights"}
    options = config.network.model_dump(exclude=files, exclude_none=True) | config.SIFA.model_dump(exclude_none=True)
    try:
        return models.build_model(
            config.network.net_name,
            num_classes=config.dataset.num_classes,
            clip_length=config.dataset.num_segments * config.dataset.clip_length,
            **options,
        )
    except ValueError as error:
        raise ConfigError(f"network: {error}") from None


def load_initial_weights(model: models.Network, config: Config, checkpoint: Path | None) -> tuple[int, list[str]]:
    """The weights that a training starts from, or that are validated: a checkpoint of ours, or from elsewhere.

    Returns the epochs that a checkpoint of ours was trained for, else 0; and what became of weights from elsewhere.
    """
    if checkpoint is not None:
        contents = read_checkpoint(checkpoint)
        load_weights(model, weights(contents, checkpoint), checkpoint)
        return entry(contents, "epoch", checkpoint), []
    reports = []
    for key, load in (
        ("imagenet_weights", models.load_imagenet_state_dict),
        ("release_weights", models.load_release_state_dict),
        ("pretrained_model", partial(models.load_pretrained, classes=class_names(config))),
    ):
        if file := getattr(config.network, key):
            if not Path(file).is_file():
                raise ConfigError(f"network.{key}: there is no file {file}")
            read = models.read_safetensors if models.is_safetensors(Path(file)) else read_checkpoint
            try:
                report = load(model, read(Path(file)))
            except ValueError as error:
                raise CheckpointError(f"{file}: {error}") from None
            reports.append(f"{file}: {report.table()}")
    return 0, reports


def build_dataset(config: Config, *, train: bool) -> ClipDataset:
    data, transform, evaluation = config.dataset, config.transform, config.evaluation
    key, list_file = ("list_file", data.list_file) if train else ("eva_list_file", data.eva_list_file)
    if not list_file:
        raise ConfigError(f"dataset.{key} must name a list file")
    root_key = "root_path" if train or not data.eva_root_path else "eva_root_path"
    root = getattr(data, root_key)
    if not Path(list_file).is_file():
        raise ConfigError(f"dataset.{key}: there is no file {list_file}")
    if not Path(root).is_dir():
        raise ConfigError(f"dataset.{root_key}: there is no folder {root}")
    augment = transform.rand_augment
    crops = 1 if train else evaluation.eva_num_crop
    return ClipDataset(
        list_file,
        root,
        transform=train_transform(
            transform.crop_size,
            color_jitter=transform.color_jitter,
            rand_augment=(augment.n, augment.m) if augment else None,
            flip=transform.horizontal_flip,
            scale=transform.scale,
            short_side=transform.short_side,
            erasing=transform.random_erasing,
        )
        if train
        else [test_transform(evaluation.eva_crop_size, crop, crops) for crop in range(crops)],
        train=train,
        num_clips=1 if train else evaluation.eva_num_clips,
        num_crops=crops,
        seed=config.seed,
        **data.model_dump(include=CLIP_KEYS),
    )


def class_names(config: Config) -> list[str]:
    file, wanted = config.dataset.classes_file, config.dataset.num_classes
    if file and not Path(file).is_file():
        raise ConfigError(f"dataset.classes_file: there is no file {file}")
    names = read_classes(file) if file else []
    if names and len(names) != wanted:
        raise ConfigError(f"dataset.classes_file {file} names {len(names)} classes, dataset.num_classes is {wanted}")
    return names


def build_loader(dataset: ClipDataset, sampler: Any, batch_size: int, config: Config, process: Process) -> DataLoader:
    workers = config.dataset.num_workers
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=process.device.type == "cuda",
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # its own, so that starting workers leaves the run's random numbers alone
    )
    _loaders.add(loader)
    return loader


_loaders: WeakSet[DataLoader] = WeakSet()


def end_workers() -> None:
    """Ends the workers of every loader.

    They ignore the signals to stop; while something holds on to a loader, such as an error's traceback, Python would
    wait for them for ever.
    """
    for loader in list(_loaders):
        if isinstance(loader._iterator, _MultiProcessingDataLoaderIter):
            loader._iterator._shutdown_workers()


def _start_worker(worker: int) -> None:
    ignore_stop_signals()
    worker_init(worker)
