"""Checks of cached teacher features."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors

from clipgs_plugin.triplets.features import read_teacher
from clipgs_plugin.triplets.inspection.result import describe
from clipgs_plugin.triplets.layout import FEATURES, TEACHER, feature_path


def load_teachers(root: Path, shards: Sequence[int]) -> tuple[dict[str, int], list[str]]:
    """Read ``teacher.json`` of every teacher with features.

    Returns:
        The width of each teacher's features by name of the folder, and the problems.
    """
    widths, problems = {}, []
    for folder in sorted(path for path in (root / FEATURES).glob('*') if path.is_dir()):
        try:
            teacher = read_teacher(folder / TEACHER)
            name, widths[folder.name] = teacher['name'], teacher['width']
        except (OSError, ValueError) as error:
            problems.append(f'features of {folder.name}: {TEACHER} cannot be read ({describe(error)})')
            continue
        if name != folder.name:
            problems.append(f'features of {folder.name}: {TEACHER} names {name!r}')
        extra = {path.stem for path in folder.glob('*.safetensors')} - {f'{shard:05d}' for shard in shards}
        problems += [f'features of {folder.name}: {stem}.safetensors belongs to no shard' for stem in sorted(extra)]
    return widths, problems


def check_features(root: Path, teacher: str, shard: int, shape: tuple[int, int, int], uids: Sequence[str],
                   captions: Sequence[list[int] | None]) -> Iterator[tuple[str | None, str]]:
    """Check that the features of one shard belong to its objects and captions.

    Args:
        root: Folder of the dataset.
        teacher: Name of the teacher.
        shard: Number of the shard.
        shape: Expected shape of the view features, (n, V, E).
        uids: Names of the n objects.
        captions: Caption ids of each object, None for an unreadable record.

    Yields:
        The uid, None if the problem concerns the whole file, and the problem.
    """
    path = feature_path(root, teacher, shard)
    if not path.is_file():
        yield None, f'missing; run tools/cache_features.py {root} --teacher {teacher}'
        return
    try:
        with safetensors.safe_open(path, 'numpy') as file:
            stored_uids = json.loads(file.metadata()['uids'])
            image, text, counts, ids = map(file.get_tensor, ('image', 'text', 'text_counts', 'caption_ids'))
    except Exception as error:  # arbitrary bytes raise arbitrary errors
        yield None, f'cannot be read ({describe(error)})'
        return
    if stored_uids != list(uids):
        yield None, 'belong to other objects than the shard'
    elif image.shape != shape or text.ndim != 3 or text.shape[::2] != shape[::2]:
        yield None, (f'image has shape {image.shape} and text {text.shape}, expected {shape} and '
                     f'({shape[0]}, captions, {shape[2]})')
    elif ids.shape != text.shape[:2] or counts.shape != shape[:1]:
        yield None, (f'caption_ids have shape {ids.shape} and text_counts {counts.shape}, expected {text.shape[:2]} '
                     f'and {shape[:1]}')
    else:
        for i, (uid, expected) in enumerate(zip(uids, captions)):
            if not (np.isfinite(image[i]).all() and np.isfinite(text[i]).all()):
                yield uid, 'NaN or infinite'
            if expected is not None and ids[i, :counts[i]].tolist() != expected:
                yield uid, 'belong to other captions than the record'
