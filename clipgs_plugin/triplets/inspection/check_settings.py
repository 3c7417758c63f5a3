"""Checks of ``dataset.json``: its settings, cameras and counts."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipgs_plugin.triplets.inspection.result import Inspection
from clipgs_plugin.triplets.inspection.strips import stored_cameras
from clipgs_plugin.triplets.layout import FRAME, SETTINGS
from clipgs_plugin.triplets.settings import read_settings

_DEFAULTS = dict(render={}, generator={}, frame=FRAME, dtype='unknown dtype', sh_degree=0)
_KINDS = {dict: 'an object', str: 'a string', int: 'a whole number'}


def load_settings(root: Path) -> tuple[dict, list[str]]:
    """Read ``dataset.json`` and replace invalid entries by defaults.

    Returns:
        The settings and the problems.

    Raises:
        FileNotFoundError: The folder has no ``dataset.json``.
        ValueError: The file is not JSON, or has another format.
    """
    settings = read_settings(root, schema={})
    problems = []
    for name, default in _DEFAULTS.items():
        if not isinstance(settings.get(name), type(default)):
            problems.append(f'{SETTINGS}: {name} is {settings.get(name)!r:.80}, expected {_KINDS[type(default)]}')
            settings[name] = default
    return settings, problems


def check_cameras(render: dict, num_views: int) -> Iterator[str]:
    """Check that the cameras of ``dataset.json`` are matrices of ``num_views`` views, if it has any."""
    try:
        if stored_cameras(dict(cameras='dataset'), render, num_views) is None and 'viewmats' in render:
            yield f'{SETTINGS}: cameras: viewmats but no intrinsics'
    except ValueError as error:
        yield f'{SETTINGS}: cameras: {error}'


def check_counts(found: Inspection, num_views: int) -> Iterator[str]:
    """Compare the counts of ``dataset.json`` with the inspected objects."""
    counts = found.settings.get('counts')
    if not isinstance(counts, dict):
        yield f'{SETTINGS} has no counts: the run that writes the dataset has not finished'
        return
    actual = dict(objects=found.objects, shards=len(found.shards), views_per_object=num_views,
                  gaussians=int(np.nansum(found.columns['gaussians'])),
                  captions=int(np.nansum(found.columns['captions'])),
                  splits=dict(found.splits), categories=len(found.categories.keys() - {None}))
    for name, value in actual.items():
        if counts.get(name) != value:
            yield f'{SETTINGS} counts {name} {counts.get(name)!r}, the shards contain {value!r}'
