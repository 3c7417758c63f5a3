"""Checks of single objects: Gaussians, views and record."""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets.codecs import decode_gaussians, decode_view
from clipgs_plugin.triplets.inspection.check_shards import read_bytes
from clipgs_plugin.triplets.inspection.result import describe
from clipgs_plugin.triplets.inspection.strips import stored_cameras
from clipgs_plugin.triplets.samples import MEASURES, content_hash

_REQUIRED = {'uid', 'category', 'split', 'source', 'quality', 'cameras', 'num_gaussians'}
_TYPES = dict(uid=str, category=str | None, split=str, num_gaussians=int)


@dataclass
class Expected:
    """Properties that all objects of a dataset share.

    Attributes:
        sh_degree: SH degree of the Gaussians.
        size: Height and width of the views; None until the first view.
        num_views: Views of each object; None until the first object.
    """

    sh_degree: int
    size: tuple[int, int] | None = None
    num_views: int | None = None

    @classmethod
    def from_settings(cls, settings: dict) -> Expected:
        size = settings['render'].get('size')
        return cls(settings['sh_degree'], (size, size) if isinstance(size, int) else None)


def check_sample(file: BinaryIO, row: dict, expected: Expected) -> tuple[dict | None, list[str]]:
    """Check an object of a shard.

    Args:
        file: The open shard.
        row: Row of the object, with offsets and sizes of its members.
        expected: Properties of the objects before this one, updated by the first.

    Returns:
        The record, None if it is unusable, and the problems.
    """
    record, problems = _load_record(file, row)
    cloud = None
    try:
        cloud = decode_gaussians(read_bytes(file, row['gaussians_offset'], row['gaussians_size'])).validate('Gaussians')
    except Exception as error:  # arbitrary bytes raise arbitrary errors
        problems.append(f'Gaussians: {describe(error)}')
    problems += _check_views(file, row, expected)
    if record is not None:
        problems += _compare_record(record, row, cloud, expected.sh_degree)
        if not problems:
            problems += _compare_hash(file, row, record)
    return record, problems


def _load_record(file: BinaryIO, row: dict) -> tuple[dict | None, list[str]]:
    """Read a record and its problems; the record is None if it is unusable."""
    try:
        record = json.loads(read_bytes(file, row['record_offset'], row['record_size']))
        texts = [caption['text'].strip() for caption in record['captions']]
        missing = _REQUIRED - record.keys()
    except Exception as error:  # arbitrary bytes raise arbitrary errors
        return None, [f'record: {describe(error)}']
    if missing:
        return None, [f'record: lacks {", ".join(sorted(missing))}']
    wrong = [name for name, kind in _TYPES.items() if not isinstance(record[name], kind)]
    if wrong:
        return None, [f'record: {wrong[0]} is {record[wrong[0]]!r:.80}']
    source, quality = record['source'], record['quality']
    if not isinstance(source, dict) or not isinstance(quality, dict) or not all(
            isinstance(quality.get(name, 0.0), int | float) for name in MEASURES):
        return None, [f'record: source {source!r} and quality {quality!r}, expected objects and numbers']
    if not texts:
        return record, ['record: no captions']
    return record, [] if all(texts) else [f'record: caption {texts.index("")} is empty']


def _check_views(file: BinaryIO, row: dict, expected: Expected) -> Iterator[str]:
    """Check the number of views, and that each decodes to the expected size."""
    count = len(row['view_offsets'])
    if expected.num_views is None:
        expected.num_views = count
    if count != expected.num_views:
        yield f'{count} views, the first object has {expected.num_views}'
    for i, member in enumerate(zip(row['view_offsets'], row['view_sizes'])):
        try:
            shape = decode_view(read_bytes(file, *member)).shape[:2]
        except Exception as error:  # arbitrary bytes raise arbitrary errors
            yield f'view {i}: cannot be decoded ({describe(error)})'
            continue
        expected.size = expected.size or shape
        if shape != expected.size:
            yield f'view {i}: {shape[1]} x {shape[0]} pixels, expected {expected.size[1]} x {expected.size[0]}'


def _compare_record(record: dict, row: dict, cloud: GaussianCloud | None, sh_degree: int) -> Iterator[str]:
    """Compare a record with the other members of its object."""
    pairs = [('uid', record['uid'], row['uid']), ('num_views', record.get('num_views'), len(row['view_offsets']))]
    if cloud is not None:
        pairs += [('num_gaussians', record['num_gaussians'], len(cloud)),
                  ('sh_degree of dataset.json', sh_degree, cloud.sh_degree)]
    for name, recorded, stored in pairs:
        if recorded != stored:
            yield f'{name} is {recorded!r}, the shard contains {stored!r}'
    for name, value in record['quality'].items():
        if isinstance(value, float) and not math.isfinite(value):
            yield f'record: quality {name} is {value}'
    try:
        if record['cameras'] != 'dataset':
            stored_cameras(record, {}, len(row['view_offsets']))
    except ValueError as error:
        yield f'cameras: {error}'


def _compare_hash(file: BinaryIO, row: dict, record: dict) -> Iterator[str]:
    """Compare the sha256 of Gaussians and views with the record, if the record has it."""
    members = [(row['gaussians_offset'], row['gaussians_size']), *zip(row['view_offsets'], row['view_sizes'])]
    actual = content_hash(read_bytes(file, *member) for member in members)
    if record.get('sha256', actual) != actual:
        yield (f'sha256 of Gaussians and views is {actual}, the record has {record["sha256"]}: bytes have changed; '
               'download the shard again')
