"""Paths and file names of a triplet dataset.

::

    OUT/dataset.json        format version, settings, counts
    OUT/shards/00000.tar    samples: UID.gaussians.safetensors, UID.000.webp ..., UID.json
    OUT/index.parquet       one row per object: uid, shard, byte offsets and sizes, category, split, psnr,
                            psnr_foreground, ssim, counts of Gaussians and captions
    OUT/features/TEACHER/   teacher.json, and one 00000.safetensors per shard
    OUT/failed.jsonl        objects that could not be generated, and why
    OUT/timings.jsonl       seconds of each step and warnings, per object
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
SHARDS, FEATURES = 'shards', 'features'
FAILED, TIMINGS, PARTS, JOINED = 'failed.jsonl', 'timings.jsonl', 'parts', 'parts.joined'
TEACHER = 'teacher.json'
OPEN = '.tmp'  # appended to the name of a shard until it is complete

# Tar members of a sample are named UID.NAME.
GAUSSIANS, RECORD, VIEW = 'gaussians.safetensors', 'json', '.webp'
MAX_UID = tarfile.LENGTH_NAME - len('.' + GAUSSIANS)  # keeps every member name within a plain tar header


def shard_path(root: str | Path, shard: int) -> Path:
    """Return the path of a complete shard."""
    return Path(root) / SHARDS / f'{shard:05d}.tar'


def open_shard_path(root: str | Path, shard: int) -> Path:
    """Return the path of a shard that is being written."""
    return Path(f'{shard_path(root, shard)}{OPEN}')


def list_shards(root: str | Path) -> list[int]:
    """List the numbers of the complete shards of a dataset, ascending."""
    numbers = [int(path.stem) for path in (Path(root) / SHARDS).glob('*.tar') if path.stem.isdecimal()]
    return sorted(shard for shard in numbers if shard_path(root, shard).is_file())


def view_member(view: int) -> str:
    """Return the name of a view within its sample."""
    return f'{view:03d}{VIEW}'


def feature_folder(root: str | Path, teacher: str) -> Path:
    """Return the folder of a teacher's features.

    Raises:
        ValueError: The name cannot name a folder.
    """
    if not re.fullmatch(r'[A-Za-z0-9._-]+', teacher) or teacher.strip('.') == '':
        raise ValueError(f'teacher {teacher!r}: expected letters, digits, ".", "_" or "-", since it names a folder')
    return Path(root) / FEATURES / teacher


def feature_path(root: str | Path, teacher: str, shard: int) -> Path:
    """Return the path of a teacher's features of one shard."""
    return feature_folder(root, teacher) / f'{shard:05d}.safetensors'


def part_path(root: str | Path, index: int, count: int) -> Path:
    """Return the folder of one job of an array of ``count``."""
    return Path(root) / PARTS / f'{index:05d}-of-{count:05d}'
