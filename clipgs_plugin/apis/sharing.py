"""Sharing of trained models: their names, and the facts about their data that a model card states."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config

from clipgs_plugin.apis.configs import list_configs
from clipgs_plugin.datasets.transforms import LoadGaussians, build_pipeline
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.models.pretrained import is_repository
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures import GaussianCloud

MAX_OBJECTS = 2000


def is_shared(name: str | Path | Config) -> bool:
    """Check whether a name is a folder or a repository of a model; names that ship come first."""
    if isinstance(name, Config):
        return False
    return is_folder(name) or is_repository(str(name))


def is_folder(name: str | Path) -> bool:
    """Check whether a name is a folder, and not that of a shipped model or config."""
    shipped = str(name) in (*load_catalogue('models'), *load_catalogue('checkpoints'), *list_configs())
    return Path(name).expanduser().is_dir() and not shipped


def prepared(cfg: Config, clouds: Iterable[GaussianCloud], split: str = 'test') -> Iterator[GaussianCloud]:
    """Yield objects as the model of a config receives them; those of split ``'train'`` with its augmentation."""
    prepare = build_pipeline(cfg[f'{split}_dataloader'].dataset.pipeline)
    for number, cloud in enumerate(clouds):
        yield prepare({'gaussians': cloud, 'rng': np.random.default_rng(number), 'index': number, 'epoch': 0})['inputs']


def clouds_of_split(cfg: Config, split: str, max_objects: int = MAX_OBJECTS) -> Iterator[GaussianCloud]:
    """Yield the objects of a config's split as stored, at most ``max_objects``, evenly spaced.

    Args:
        cfg: Config of an experiment.
        split: ``'train'``, ``'val'`` or ``'test'``.
        max_objects: Maximum number of objects.

    Raises:
        ValueError: The config has no such dataloader.
    """
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader; choose another split')
    options = {**loader.dataset.to_dict(), 'pipeline': [LoadGaussians()], 'test_mode': True}
    dataset = DATASETS.build(options)
    for index in np.linspace(0, len(dataset) - 1, min(len(dataset), max_objects)).round().astype(int).tolist():
        yield dataset[index]['gaussians']


def read_metrics(path: Path) -> dict[str, float]:
    """Read metrics as ``tools/test.py --json`` prints them.

    Raises:
        ValueError: The file is not one JSON object of numbers.
    """
    metrics = read_json(path)
    if not isinstance(metrics, Mapping) or not all(isinstance(value, (int, float)) and not isinstance(value, bool)
                                                   for value in metrics.values()):
        raise ValueError(f'{path}: expected one JSON object of numbers by name, as tools/test.py --json prints')
    return dict(metrics)
