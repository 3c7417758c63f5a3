"""Paths and names of files in a triplet dataset.

::

    OUT/dataset.json        format version, settings, counts
    OUT/shards/00000.tar    samples: UID.gaussians.safetensors, UID.000.webp ..., UID.json
    OUT/index.parquet       one row an object: uid, shard, byte offsets and sizes, category, split, quality
    OUT/features/TEACHER/   teacher.json, and one 00000.safetensors a shard
    OUT/failed.jsonl        objects that could not be generated, and why
    OUT/timings.jsonl       seconds of each step and warnings, object by object
    OUT/parts/              datasets of the jobs of an array, until they are joined
"""
from __future__ import annotations

import re
import tarfile
from pathlib import Path

FORMAT = 'clipgs-triplets'
FORMAT_VERSION = 1
FRAME = 'right-handed, y up'

SETTINGS, INDEX = 'dataset.json', 'index.parquet'
FAILED, TIMINGS, PARTS, JOINED = 'failed.jsonl', 'timings.jsonl', 'parts', 'parts.joined'
TEACHER = 'teacher.json'

# Members of a sample are UID.NAME.
GAUSSIANS, RECORD = 'gaussians.safetensors', 'json'
MAX_UID = tarfile.LENGTH_NAME - len('.' + GAUSSIANS)  # so that every member's name fits a plain tar header


def shard_path(root: str | Path, shard: int) -> Path:
    """Path of a whole shard."""
    return Path(root) / 'shards' / f'{shard:05d}.tar'


def list_shards(root: str | Path) -> list[int]:
    """The numbers of the whole shards of a dataset, ascending."""
    numbers = [int(path.stem) for path in (Path(root) / 'shards').glob('*.tar') if path.stem.isdecimal()]
    return sorted(shard for shard in numbers if shard_path(root, shard).is_file())


def feature_folder(root: str | Path, teacher: str) -> Path:
    """Folder of a teacher's features.

    Raises:
        ValueError: The name cannot be that of a folder.
    """
    if not re.fullmatch(r'[A-Za-z0-9._-]+', teacher) or teacher.strip('.') == '':
        raise ValueError(f'teacher {teacher!r}: expected letters, digits, ".", "_" or "-", since it names a folder')
    return Path(root) / 'features' / teacher


def part_path(root: str | Path, index: int, count: int) -> Path:
    """Folder of one job of an array of ``count``."""
    return Path(root) / PARTS / f'{index:05d}-of-{count:05d}'
