"""The ``.ksplat`` of mkkellogg's GaussianSplats3D viewer, read only.

A file holds a header of 4,096 bytes, a header of 1,024 bytes per section, and the sections. Level 0 stores float32.
Level 1 stores half floats, and positions in 16 bits relative to the centre of a bucket. Level 2 also stores SH in 8
bits. Colour and alpha have 8 bits, SH has degree 2 at most.
Hand-written: no Python package documents both a byte-exact round trip and errors that name the damaged field.
"""
from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise
from clipgs_plugin.io.files import cloud_from_arrays
from clipgs_plugin.structures import GaussianCloud

HEADER_BYTES = 4096
SECTION_BYTES = 1024
_HEADER = struct.Struct('<BBxxIIIIH2x3fff')  # version, sections, counts, level, scene centre, SH range
_SECTION = struct.Struct('<IIIIfHxxIIIIH')
_DEFAULT_SH_RANGE = 1.5
_DEFAULT_STEPS = 32767


@dataclass(frozen=True)
class _Section:
    """Header of one section."""

    count: int
    capacity: int
    bucket_size: int
    buckets: int
    block: float         # edge length of the block of a bucket
    bucket_bytes: int
    steps: int           # half the range of a quantised position
    storage: int
    full: int            # number of buckets that hold bucket_size Gaussians
    partial: int         # number of buckets whose sizes are listed
    degree: int


def _record(level: int, degree: int) -> np.dtype:
    number, position = ('<f4', '<f4') if level == 0 else ('<f2', '<u2')
    bands = {0: '<f4', 1: '<f2', 2: 'u1'}[level]
    return np.dtype([('means', position, 3), ('scales', number, 3), ('quats', number, 4), ('rgb', 'u1', 3),
                     ('alpha', 'u1'), ('sh', bands, 3 * ((degree + 1) ** 2 - 1))])


def read(path: Path) -> GaussianCloud:
    """Read version 0.1, level 0, 1 or 2.

    Raises:
        ValueError: Version, counts and file size disagree; the format has no signature.
    """
    data = path.read_bytes()
    if len(data) < HEADER_BYTES:
        raise ValueError(f'{path}: {len(data)} bytes, less than a .ksplat header of {HEADER_BYTES}; it is truncated or '
                         'another format, download it again')
    major, minor, max_sections, _, _, total, level, *_, low, high = _HEADER.unpack_from(data)
    if (major, minor) != (0, 1) or level > 2:
        raise ValueError(f'{path}: .ksplat version {major}.{minor}, level {level}, expected 0.1 and a level of 0 to 2; '
                         'it may be another format, export it again')
    offset = HEADER_BYTES + max_sections * SECTION_BYTES
    if offset > len(data):
        raise ValueError(f'{path}: header promises {max_sections} sections, the file ends after {len(data)} bytes; it '
                         'is probably truncated, download it again')
    sections = [_Section(*_SECTION.unpack_from(data, HEADER_BYTES + i * SECTION_BYTES)) for i in range(max_sections)]
    degree = max((section.degree for section in sections), default=0)
    if degree > 2:
        raise ValueError(f'{path}: SH degree {degree}, expected 0 to 2; it is damaged or another format')
    parts = []
    for section in sections:
        record = _record(level, section.degree)
        start = offset + 4 * section.partial + section.bucket_bytes * section.buckets
        end = start + section.capacity * record.itemsize
        if end > len(data) or section.count > section.capacity:
            raise ValueError(f'{path}: header promises {section.count} of at most {section.capacity} Gaussians of '
                             f'{record.itemsize} bytes up to byte {end}, the file ends after {len(data)}; it is '
                             'probably truncated, download it again')
        table = np.frombuffer(data, record, section.count, start)
        means = table['means'].astype(np.float64)
        if level:
            means = (means - (section.steps or _DEFAULT_STEPS)) * (
                section.block / 2 / (section.steps or _DEFAULT_STEPS)) + _centres(path, data, offset, section)
        bands = table['sh'].astype(np.float64)
        if level == 2:
            low, high = low or -_DEFAULT_SH_RANGE, high or _DEFAULT_SH_RANGE
            bands = low + bands / 255 * (high - low)
        parts.append((means, table['quats'], quantise.log_scales(table['scales']),
                      quantise.logits_from_bytes(table['alpha']), _sh(table['rgb'], bands, section.degree, degree)))
        offset = end
    found = sum(section.count for section in sections)
    if found != total or offset != len(data):
        raise ValueError(f'{path}: header promises {total} Gaussians, its sections hold {found} and end at byte '
                         f'{offset} of {len(data)}; it is damaged or another format')
    if not total:
        raise ValueError(f'{path}: holds no Gaussians; export it again')
    return cloud_from_arrays(*(np.concatenate(fields) for fields in zip(*parts)))


def _centres(path: Path, data: bytes, offset: int, section: _Section) -> np.ndarray:
    """Return the bucket centre of each Gaussian, (count, 3); full buckets precede partial ones."""
    if section.bucket_bytes != 12 or section.full + section.partial != section.buckets:
        raise ValueError(f'{path}: header promises {section.buckets} buckets of {section.bucket_bytes} bytes, expected '
                         f'{section.full} full and {section.partial} partial ones of 12; it is damaged, download it '
                         'again')
    sizes = np.concatenate([np.full(section.full, section.bucket_size, np.int64),
                            np.frombuffer(data, '<u4', section.partial, offset)])
    centres = np.frombuffer(data, '<f4', 3 * section.buckets, offset + 4 * section.partial).reshape(-1, 3)
    ends = np.cumsum(sizes)
    if section.count > (ends[-1] if len(ends) else 0):
        raise ValueError(f'{path}: {section.buckets} buckets for {int(sizes.sum())} Gaussians, header promises '
                         f'{section.count}; it is damaged, download it again')
    return centres[np.searchsorted(ends, np.arange(section.count), side='right')].astype(np.float64)


def _sh(rgb: np.ndarray, bands: np.ndarray, degree: int, target: int) -> np.ndarray:
    """Return all bands, (N, (target + 1) ** 2, 3); a file stores the red, green and blue of each band in turn."""
    sh = np.zeros((len(rgb), (target + 1) ** 2, 3))
    sh[:, 0] = quantise.dc_from_rgb(rgb / 255)
    for d in range(1, degree + 1):
        start, end = d * d, (d + 1) ** 2
        sh[:, start:end] = bands[:, 3 * (start - 1):3 * (end - 1)].reshape(len(rgb), 3, -1).transpose(0, 2, 1)
    return sh
