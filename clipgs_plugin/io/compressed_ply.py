"""The compressed ``.ply`` of PlayCanvas (SuperSplat): 16 bytes per Gaussian, in chunks of 256 with their own bounds.

Positions and log scales have 11, 10 and 11 bits between the bounds of their chunk. Quaternions store the three
smallest components of wxyz in 10 bits each. Colours and alpha have 8 bits, optional higher SH bands 8 bits over
[-4, 4].
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipgs_plugin.io import ply, quantise
from clipgs_plugin.io.files import arrays_from_cloud, cloud_from_arrays
from clipgs_plugin.io.inria_ply import count_rest, rest_names
from clipgs_plugin.structures import GaussianCloud

CHUNK = 256
MAX_SH = 4.0
MAX_LOG_SCALE = 20.0
_BOUNDS = [f'{end}_{kind}{axis}' for kind in ('', 'scale_') for end in ('min', 'max') for axis in 'xyz']
_COLOR_BOUNDS = [f'{end}_{channel}' for end in ('min', 'max') for channel in 'rgb']
_PACKED = ['packed_position', 'packed_rotation', 'packed_scale', 'packed_color']
_VECTOR_BITS = ((21, 11), (11, 10), (0, 11))  # shift and width of x, y, z
_COLOR_BITS = ((24, 8), (16, 8), (8, 8), (0, 8))
_QUAT_BITS = ((20, 10), (10, 10), (0, 10))


def _unpack(packed: np.ndarray, layout) -> np.ndarray:
    """Return the fields of 32-bit words as numbers in [0, 1], (N, fields)."""
    return np.stack([(packed >> shift & (2 ** bits - 1)) / (2 ** bits - 1) for shift, bits in layout], axis=1)


def _pack(values: np.ndarray, layout) -> np.ndarray:
    """Invert :func:`_unpack`, rounding to nearest."""
    packed = np.zeros(len(values), np.uint32)
    for column, (shift, bits) in enumerate(layout):
        steps = np.rint(np.clip(values[:, column], 0, 1) * (2 ** bits - 1)).astype(np.uint32)
        packed |= steps << np.uint32(shift)
    return packed


def is_compressed(file: ply.Ply) -> bool:
    """Return True if a file has the elements of a compressed ``.ply``."""
    return 'chunk' in file and 'vertex' in file and 'packed_position' in file['vertex'].properties


def _check_type(file: ply.Ply, element: str, names: list[str], kind: str, expected: str) -> None:
    """Compare the numpy kind of some properties."""
    wrong = [name for name in names if file[element].dtype[name].kind != kind]
    if wrong:
        raise ValueError(f'{file.path}: {element} property {", ".join(wrong)} is not of type {expected}; export it '
                         'again')


def from_ply(file: ply.Ply) -> GaussianCloud:
    """Read a file with or without colour bounds, SH degree 0 to 3.

    Raises:
        ValueError: A property is missing or has another type, or the counts of the elements disagree.
    """
    path = file.path
    for element, names in (('chunk', _BOUNDS), ('vertex', _PACKED)):
        missing = [name for name in names if name not in file[element].properties]
        if missing:
            raise ValueError(f'{path}: {element} lacks the property {", ".join(missing)} of a compressed .ply; export '
                             'it again')
    _check_type(file, 'vertex', _PACKED, 'u', 'uint')
    _check_type(file, 'chunk', [name for name in [*_BOUNDS, *_COLOR_BOUNDS] if name in file['chunk'].properties], 'f',
                'float')
    count, chunks = file['vertex'].count, file['chunk'].count
    if chunks != -(-count // CHUNK):
        raise ValueError(f'{path}: header promises {count} Gaussians in {chunks} chunks, expected {-(-count // CHUNK)} '
                         f'of {CHUNK} each; export it again')
    rest = count_rest(path, file['sh'].properties) if 'sh' in file else 0
    _check_type(file, 'sh', rest_names(rest), 'u', 'uchar')
    if rest and file['sh'].count != count:
        raise ValueError(f'{path}: header promises SH bands for {file["sh"].count} of {count} Gaussians; '
                         'export it again')
    tables = file.read()
    chunk_of = np.arange(count) // CHUNK

    def between(names: list[str], t: np.ndarray) -> np.ndarray:
        low, high = np.split(ply.columns(tables['chunk'], names).astype(np.float64)[chunk_of], 2, axis=1)
        return low * (1 - t) + high * t

    packed = {name: tables['vertex'][name].astype(np.uint32) for name in _PACKED}
    color = _unpack(packed['packed_color'], _COLOR_BITS)
    rgb = color[:, :3]
    if set(_COLOR_BOUNDS) <= set(file['chunk'].properties):
        rgb = between(_COLOR_BOUNDS, rgb)
    three = (_unpack(packed['packed_rotation'], _QUAT_BITS) - 0.5) * 2 ** 0.5
    sh = quantise.dc_from_rgb(rgb)[:, None]
    if rest:
        steps = np.stack([tables['sh'][name] for name in rest_names(rest)], axis=1).astype(np.float64)
        unit = np.where(steps == 0, 0, np.where(steps == 255, 1, (steps + 0.5) / 256))
        bands = (unit - 0.5) * 2 * MAX_SH
        sh = np.concatenate([sh, bands.reshape(count, 3, rest // 3).transpose(0, 2, 1)], axis=1)
    return cloud_from_arrays(
        means=between(_BOUNDS[:6], _unpack(packed['packed_position'], _VECTOR_BITS)),
        quats=quantise.restore_largest(packed['packed_rotation'] >> 30, three),
        log_scales=between(_BOUNDS[6:], _unpack(packed['packed_scale'], _VECTOR_BITS)),
        opacity_logits=quantise.logits_from_bytes(packed['packed_color'] & 255),
        sh=sh)


def storage_order(cloud: GaussianCloud) -> np.ndarray:
    """Return the index in the cloud of each stored Gaussian, (N,); neighbours share a chunk for tight bounds."""
    return quantise.morton_order(arrays_from_cloud(cloud)['means'])


def write(cloud: GaussianCloud, path: Path, comments: Sequence[str] = ()) -> None:
    """Write all SH bands of the cloud in :func:`storage_order`, and comments in ascii."""
    order = storage_order(cloud)
    raw = {name: value[order] for name, value in arrays_from_cloud(cloud).items()}
    count, starts = len(cloud), np.arange(0, len(cloud), CHUNK)
    chunk_of = np.arange(count) // CHUNK
    rest = (raw['sh'].shape[1] - 1) * 3

    def normalise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds of each chunk, (chunks, 6) float32, and the values relative to them in [0, 1]."""
        low = np.minimum.reduceat(values, starts).astype(np.float32)
        high = np.maximum.reduceat(values, starts).astype(np.float32)
        span = (high.astype(np.float64) - low)[chunk_of]
        return np.concatenate([low, high], axis=1), (values - low[chunk_of]) / np.where(span > 0, span, 1)

    position_bounds, position = normalise(raw['means'].astype(np.float64))
    scale_bounds, scale = normalise(np.clip(raw['log_scales'].astype(np.float64), -MAX_LOG_SCALE, MAX_LOG_SCALE))
    color_bounds, color = normalise(quantise.rgb_from_dc(raw['sh'][:, 0]))
    largest, three = quantise.drop_largest(raw['quats'])
    vertex = np.stack([
        _pack(position, _VECTOR_BITS),
        _pack(three / 2 ** 0.5 + 0.5, _QUAT_BITS) | largest.astype(np.uint32) << np.uint32(30),
        _pack(scale, _VECTOR_BITS),
        _pack(color, _COLOR_BITS[:3]) | quantise.bytes_from_logits(raw['opacity_logits']),
    ], axis=1).astype('<u4')
    bounds = np.concatenate([position_bounds, scale_bounds, color_bounds], axis=1).astype('<f4')
    elements = {'chunk': ply.structured(bounds, [*_BOUNDS, *_COLOR_BOUNDS]),
                'vertex': ply.structured(vertex, _PACKED)}
    if rest:
        bands = raw['sh'][:, 1:].transpose(0, 2, 1).reshape(count, rest).astype(np.float64)
        steps = np.clip(np.floor((bands / (2 * MAX_SH) + 0.5) * 256), 0, 255).astype(np.uint8)
        elements['sh'] = ply.structured(steps, rest_names(rest))
    ply.write(path, elements, comments)
