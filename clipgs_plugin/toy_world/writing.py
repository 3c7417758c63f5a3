"""Toy world on disk: triplet shards, and single splat files."""
from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.io import write_gaussians
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.toy_world.patterns import COLORS
from clipgs_plugin.toy_world.specs import SPLITS, ObjectSpec, looks, object_specs
from clipgs_plugin.toy_world.world import (
    BACKGROUND,
    VIEW_DISTANCE,
    VIEW_ELEVATIONS,
    VIEW_FOV,
    make_object,
    render_views,
    viewpoints,
)
from clipgs_plugin.triplets import ShardWriter

VERSION = '1'  # of the world; a change of the bytes for one seed raises it


def write_world(
    out_dir: str | Path,
    num_train: int = 1200,
    num_val: int = 600,
    num_test: int = 400,
    num_views: int = 8,
    size: int = 64,
    num_gaussians: int = 1024,
    seed: int = 0,
    workers: int = 2,
    track: Callable[[Iterable], Iterable] = iter,
) -> int:
    """Write triplet shards of the toy world, or resume an interrupted run.

    Equal arguments write equal bytes for any number of workers.

    Args:
        out_dir: Folder of the dataset.
        num_train: Number of objects of the split ``'train'``.
        num_val: Number of objects of the split ``'val'``, other objects of the looks of training.
        num_test: Number of objects of the split ``'test'``, of looks that training lacks.
        num_views: Number of views per object.
        size: Width and height of the views in pixels.
        num_gaussians: Number of Gaussians per object.
        seed: Random seed of the world.
        workers: Number of processes; 1 uses the current process.
        track: Function that wraps the list of remaining objects, as ``rich.progress.track``.

    Returns:
        Number of objects made in this run.

    Raises:
        ValueError: A number is out of range, or the folder holds a world with other settings.
    """
    for name, value in dict(num_train=num_train, num_val=num_val, num_test=num_test).items():
        if value < 0:
            raise ValueError(f'{name}={value}: expected at least 0')
    for name, value in dict(num_views=num_views, size=size, num_gaussians=num_gaussians, workers=workers).items():
        if value < 1:
            raise ValueError(f'{name}={value}: expected at least 1')
    counts = dict(train=num_train, val=num_val, test=num_test)
    specs = [spec for split, count in counts.items() for spec in object_specs(count, seed, split)]
    render = dict(size=size, num_views=num_views, fov_degrees=VIEW_FOV, distance_in_radii=VIEW_DISTANCE,
                  elevation_degrees=VIEW_ELEVATIONS, background=BACKGROUND,
                  cameras='azimuth and elevation in degrees are in the viewpoints of each source')
    generator = dict(name='toy_world', version=VERSION, seed=seed, num_gaussians=num_gaussians,
                     **{f'num_{split}': count for split, count in counts.items()})
    with ShardWriter(out_dir, render=render, generator=generator) as writer:
        missing = [spec for spec in specs if spec.uid not in writer]
        made = _make_all(missing, num_gaussians, num_views, size, workers)
        for spec in track(missing):
            fields, category, captions, views = next(made)
            cloud = GaussianCloud(**{name: torch.from_numpy(value) for name, value in fields.items()})
            source = dict(generator='toy_world', seed=list(spec.seed),
                          viewpoints=viewpoints(spec, num_views).round(3).tolist())
            writer.write(spec.uid, cloud, views, captions=captions, category=category, split=spec.split,
                         source=source, attributes=spec.attributes, cameras='own')
    return len(missing)


def _make(spec: ObjectSpec, num_gaussians: int, num_views: int, size: int):
    """Make an object as arrays, whose bytes are copied between processes; tensors would be shared."""
    toy = make_object(spec, num_gaussians)
    fields: dict[str, np.ndarray] = {name: value.numpy() for name, value in toy.gaussians.fields()}
    return fields, toy.category, toy.captions, render_views(spec, num_views, size)


def _make_all(specs: list[ObjectSpec], num_gaussians: int, num_views: int, size: int, workers: int) -> Iterator:
    """Yield the result of :func:`_make` for each specification, in order."""
    make = partial(_make, num_gaussians=num_gaussians, num_views=num_views, size=size)
    if workers == 1 or len(specs) < 2 * workers:
        yield from map(make, specs)
        return
    # A fork would copy the locks of torch's threads without the threads. One thread per process is fastest.
    with multiprocessing.get_context('spawn').Pool(workers, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap(make, specs, chunksize=4)


EXPORTED = ('chair', 'car', 'mug', 'rocket', 'teapot', 'teddy bear', 'basketball', 'puzzle cube', 'airplane', 'duck',
            'tree', 'umbrella', 'globe', 'clock', 'drum', 'snowman', 'guitar', 'gift box')
EXPORT_FORMATS = ('.ply', '.splat', '.spz')


def export_specs(num_objects: int, seed: int = 0) -> list[ObjectSpec]:
    """Return objects of unseen looks for export as files: well-known categories in varied colours, then all in turn.

    Args:
        num_objects: Number of objects; a shorter list is a prefix of a longer one.
        seed: Random seed of the world; its test objects are not exported.

    Raises:
        ValueError: The number is negative.
    """
    if num_objects < 0:
        raise ValueError(f'num_objects={num_objects}: expected at least 0 files')
    specs = []
    for i, category in enumerate(EXPORTED[:num_objects]):
        choices = looks(category, 'test')
        color = list(COLORS)[i % len(COLORS)]
        look = next((look for look in choices if look[0] == color), choices[i % len(choices)])
        specs.append(ObjectSpec(f'toy-export-{i:05d}', 'test', category, look, (seed, len(SPLITS), i)))
    further = object_specs(max(num_objects - len(EXPORTED), 0), seed, 'test')
    return specs + [replace(spec, uid=f'toy-export-{i:05d}', seed=(seed, len(SPLITS), i))
                    for i, spec in enumerate(further, len(EXPORTED))]


def export_files(folder: str | Path, num_objects: int = 9, num_gaussians: int = 1024, seed: int = 0) -> list[Path]:
    """Write objects as splat files named after their contents, with formats in turn.

    Returns:
        Paths of the files, as ``red_striped_chair.ply``, and ``red_striped_chair_01234.ply`` for a further one of the
        categories in turn.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i, spec in enumerate(export_specs(num_objects, seed)):
        number = '' if i < len(EXPORTED) else f'_{i:05d}'
        paths.append(folder / f'{spec.name}{number}{EXPORT_FORMATS[i % len(EXPORT_FORMATS)]}')
        write_gaussians(make_object(spec, num_gaussians).gaussians, paths[-1])
    return paths
