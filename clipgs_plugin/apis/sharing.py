"""Sharing of trained models: their names, and the facts about their data that a model card states."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config

from clipgs_plugin.apis.configs import list_configs
from clipgs_plugin.datasets.transforms import LoadGaussians
from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.models.pretrained import is_repository
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures import GaussianCloud

LEVELS = (1, 5, 25, 50, 75, 95, 99)  # percent
PER_OBJECT = 2048
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


def attribute_quantiles(clouds: Iterable[GaussianCloud], per_object: int = PER_OBJECT) -> dict[str, int | list]:
    """Return quantiles of the attributes of objects.

    Args:
        clouds: Objects, as stored.
        per_object: Maximum number of Gaussians of an object that count, evenly spaced in its file, so that large
            objects do not outweigh small ones.

    Returns:
        ``levels`` in percent, number of ``objects``, and for ``extent`` (longest side of the bounding box of an
        object's means), ``scales``, ``opacities``, ``colours`` (0 to 1) and ``count`` (Gaussians of an object) a list
        of quantiles, interpolated linearly.

    Raises:
        ValueError: There is no object.
    """
    values: dict[str, list[np.ndarray]] = {key: [] for key in ('extent', 'scales', 'opacities', 'colours', 'count')}
    for cloud in clouds:
        values['extent'].append((cloud.means.amax(0) - cloud.means.amin(0)).amax()[None].numpy())
        values['count'].append(np.array([len(cloud)]))
        kept = cloud[np.linspace(0, len(cloud) - 1, min(len(cloud), per_object)).round().astype(int).tolist()]
        for key, value in dict(scales=kept.scales, opacities=kept.opacities, colours=kept.rgb).items():
            values[key].append(value.flatten().numpy())
    if not values['count']:
        raise ValueError('there are no objects to take quantiles of; give a split or folder that holds some')
    return {'levels': list(LEVELS), 'objects': len(values['count']), **{
        key: [float(f'{value:.6g}') for value in np.percentile(np.concatenate(arrays).astype(np.float64), LEVELS)]
        for key, arrays in values.items()}}


def clouds_of_split(cfg: Config, split: str, max_objects: int = MAX_OBJECTS) -> Iterable[GaussianCloud]:
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
