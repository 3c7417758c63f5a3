"""The ``.spz`` of Niantic: planes of bytes, compressed with gzip (versions 2 and 3) or zstd (version 4).

Positions are 24-bit fixed point. Log scales have 8 bits in steps of 1/16, alpha and colour 8 bits, SH bands 8 bits over
[-1, 1). Quaternions store xyz in 8 bits each (version 2) or the three smallest components of xyzw in 10 bits each. The
frame is right, up, back: the INRIA frame after a half turn about x, which this module applies to means, quaternions
and SH.
Hand-written: no Python package documents both a byte-exact round trip and errors that name the damaged field.
"""
from __future__ import annotations

import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise, render_modes
from clipgs_plugin.io.files import arrays_from_cloud, check_ratio, cloud_from_arrays, write_whole
from clipgs_plugin.ops.spherical_harmonics import MAX_DEGREE
from clipgs_plugin.structures import GaussianCloud

MAGIC = b'NGSP'
GZIP = b'\x1f\x8b\x08'  # with the only method of compression
VERSIONS = (2, 3, 4)
MAX_FILE_DEGREE = 4  # of which 3 are kept
_HEADER = struct.Struct('<4sIIBBBB')  # magic, version, count, SH degree, fractional bits, flags, streams (version 4)
_HEADER_V4_BYTES = 32
_ANTIALIASED, _EXTENSIONS = 0x1, 0x2
_MAX_EXTENSION_BYTES = 2 ** 20
_COORDINATE_SYSTEM, _RIGHT_UP_BACK = 0xADBE0003, (0, 4)  # the extension that declares a frame, and the accepted frames
_COLOR_SCALE = 0.15
_XYZW = [1, 2, 3, 0]
_WXYZ = [3, 0, 1, 2]
_FLIP_MEANS = np.array([1.0, -1, -1])
_FLIP_QUATS = np.array([1.0, 1, -1, -1])  # the half turn q -> i q / i; the sign of an axis has no effect
# Signs of y, z, x; xy, yz, zz, xz, xx-yy; ... under y -> -y, z -> -z.
_FLIP_SH = np.array([1.0, -1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1])


def _plane_sizes(version: int, count: int, degree: int) -> list[int]:
    """Return the bytes of positions, alphas, colours, scales, rotations and SH."""
    return [9 * count, count, 3 * count, 3 * count, (3 if version == 2 else 4) * count,
            3 * ((degree + 1) ** 2 - 1) * count]


def _parse_header(path: Path, data: bytes, held: int) -> tuple[int, int, int, int, int, int]:
    if len(data) < _HEADER.size or data[:4] != MAGIC:
        raise ValueError(f'{path}: not a .spz header, expected it to start with {MAGIC.decode()}; it is damaged or '
                         'another format')
    _, version, count, degree, bits, flags, streams = _HEADER.unpack_from(data)
    if version not in VERSIONS:
        raise ValueError(f'{path}: .spz version {version}, expected one of {VERSIONS}; export it as version 3')
    if degree > MAX_FILE_DEGREE:
        raise ValueError(f'{path}: SH degree {degree}, expected 0 to {MAX_FILE_DEGREE}; export it with degree 3')
    if bits > 30:
        raise ValueError(f'{path}: positions with {bits} fractional bits, expected at most 30; it is damaged, '
                         'export it again')
    if not count:
        raise ValueError(f'{path}: holds no Gaussians; export it again')
    promised = sum(_plane_sizes(version, count, degree))
    check_ratio(path, f'its header promises {count} Gaussians,', promised, held)
    return version, count, degree, bits, flags, streams


def _check_extensions(path: Path, data: bytes) -> None:
    """Skip extensions, except one that declares another frame.

    Raises:
        ValueError: The frame is not right, up, back.
    """
    offset = 0
    while offset + 8 <= len(data):
        kind, size = struct.unpack_from('<II', data, offset)
        payload = data[offset + 8:offset + 8 + size]
        if kind == _COORDINATE_SYSTEM and int.from_bytes(payload, 'little') not in _RIGHT_UP_BACK:
            raise ValueError(f'{path}: an extension declares coordinate system {int.from_bytes(payload, "little")}, '
                             'expected right-up-back (4); export it without the extension')
        offset += 8 + size


def _read_gzip(path: Path, data: bytes) -> tuple[bytes, bytes]:
    """Return header and planes of version 2 or 3, without inflating more than the header promises."""
    stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        head = stream.decompress(data, _HEADER.size)
        version, count, degree, _, flags, _ = _parse_header(path, head, len(data))
        if version > 3:
            raise ValueError(f'{path}: gzipped .spz version {version}, expected 2 or 3; export it again')
        expected = sum(_plane_sizes(version, count, degree))
        slack = _MAX_EXTENSION_BYTES if flags & _EXTENSIONS else 1
        body = stream.decompress(stream.unconsumed_tail, expected + slack)
    except zlib.error as error:
        raise ValueError(f'{path}: damaged gzip data ({error}); download or export it again') from None
    if len(body) < expected:
        raise ValueError(f'{path}: header promises {count} Gaussians in {expected} bytes, the file holds {len(body)}; '
                         'it is probably truncated, download or export it again')
    if (len(body) > expected and not flags & _EXTENSIONS) or stream.unused_data or stream.unconsumed_tail:
        raise ValueError(f'{path}: bytes follow the {count} Gaussians that the header promises; export it again')
    if not stream.eof:
        raise ValueError(f'{path}: gzip data ends before its checksum; it is truncated, download or export it again')
    _check_extensions(path, body[expected:])
    return head, body[:expected]


def _read_zstd(path: Path, data: bytes) -> tuple[bytes, bytes]:
    """Return header and planes of version 4: an uncompressed header, a table of sizes, one zstd stream per plane."""
    import pyarrow

    version, count, degree, _, flags, streams = _parse_header(path, data, len(data))
    if version < 4:
        raise ValueError(f'{path}: .spz version {version} without gzip, expected version 4; export it again')
    sizes = [size for size in _plane_sizes(version, count, degree) if size]
    table, = struct.unpack_from('<I', data, _HEADER.size) if len(data) >= _HEADER_V4_BYTES else (0,)
    start = table + 16 * streams
    if streams != len(sizes) or table < _HEADER_V4_BYTES or start > len(data):
        raise ValueError(f'{path}: header promises {streams} streams with their sizes at byte {table}, expected '
                         f'{len(sizes)} in a file of {len(data)} bytes; it is truncated or damaged, '
                         'download it again')
    if flags & _EXTENSIONS:
        _check_extensions(path, data[_HEADER_V4_BYTES:table])
    planes = []
    for index, expected in enumerate(sizes):
        packed, unpacked = struct.unpack_from('<QQ', data, table + 16 * index)
        if unpacked != expected or start + packed > len(data):
            raise ValueError(f'{path}: stream {index} promises {unpacked} bytes from {packed}, expected {expected} for '
                             f'{count} Gaussians, within a file of {len(data)}; it is truncated or damaged, '
                             'download it again')
        try:
            with pyarrow.CompressedInputStream(pyarrow.BufferReader(data[start:start + packed]), 'zstd') as stream:
                planes.append(stream.read(expected + 1))
        except OSError as error:
            raise ValueError(f'{path}: stream {index} is damaged zstd data ({error}); download it again') from None
        if len(planes[-1]) != expected:
            raise ValueError(f'{path}: stream {index} holds {len(planes[-1])} bytes or more, expected {expected} for '
                             f'{count} Gaussians; it is damaged, download it again')
        start += packed
    if start != len(data):
        raise ValueError(f'{path}: {len(data) - start} bytes follow the last stream; export it again')
    return data[:_HEADER.size], b''.join(planes)


def is_antialiased(path: Path) -> bool:
    """Read the header of a file and return its flag of antialiasing."""
    data = path.read_bytes()
    if data.startswith(GZIP):
        head = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(data, _HEADER.size)
    else:
        head = data
    return bool(_parse_header(path, head, len(data))[4] & _ANTIALIASED)


def read(path: Path) -> GaussianCloud:
    """Read version 2, 3 or 4 into the INRIA frame."""
    return parse(path, path.read_bytes())


def parse(path: Path, data: bytes) -> GaussianCloud:
    """Read the content of a file, such as a block of another format, into the INRIA frame; ``path`` names it."""
    head, body = _read_gzip(path, data) if data.startswith(GZIP) else _read_zstd(path, data)
    version, count, degree, bits, flags, _ = _parse_header(path, head, len(data))
    if flags & _ANTIALIASED:
        render_modes.warn_of_mode(path, render_modes.ANTIALIASED)
    ends = np.cumsum(_plane_sizes(version, count, degree))[:-1]
    positions, alphas, colors, scales, rotations, sh = np.split(np.frombuffer(body, np.uint8), ends)

    high = np.zeros((count * 3, 4), np.uint8)
    high[:, 1:] = positions.reshape(-1, 3)  # the sign lands in the top bit
    means = (high.view('<i4') >> 8).reshape(count, 3) * 2.0 ** -bits
    bands = np.zeros((count, (degree + 1) ** 2, 3))
    bands[:, 0] = (colors.reshape(count, 3) / 255 - 0.5) / _COLOR_SCALE
    bands[:, 1:] = (sh.reshape(count, -1, 3) - 128.0) / 128
    if degree > MAX_DEGREE:
        warnings.warn(f'{path}: harmonics of degree {degree} were cut to degree {MAX_DEGREE}', stacklevel=4)
        bands = bands[:, :(MAX_DEGREE + 1) ** 2]
    quats = _first_three(rotations.reshape(count, 3)) if version == 2 else _smallest_three(rotations.view('<u4'))
    return cloud_from_arrays(
        means=means * _FLIP_MEANS + 0.0,  # no negative zeros
        quats=quats * _FLIP_QUATS,
        log_scales=scales.reshape(count, 3) / 16 - 10,
        opacity_logits=quantise.logits_from_bytes(alphas),
        sh=bands * _FLIP_SH[:bands.shape[1], None])


def _first_three(steps: np.ndarray) -> np.ndarray:
    """Return wxyz, w >= 0, from x, y, z in 8 bits each."""
    xyz = steps / 127.5 - 1
    return np.concatenate([quantise.fourth_of_unit(xyz)[:, None], xyz], axis=1)


def _smallest_three(packed: np.ndarray) -> np.ndarray:
    """Return wxyz from 2 bits for the largest of xyzw, and a sign and 9 bits for each of the others."""
    fields = packed[:, None] >> np.array([20, 10, 0], np.uint32)
    magnitude = (fields & 511) / (511 * 2 ** 0.5)
    return quantise.restore_largest(packed >> 30, np.where(fields & 512, -magnitude, magnitude))[:, _WXYZ]


def write(cloud: GaussianCloud, path: Path, version: int = 3, fractional_bits: int = 12,
          antialiased: bool = False) -> None:
    """Write all SH bands of the cloud in its order; see :func:`pack`."""
    write_whole(path, pack(cloud, version, fractional_bits, antialiased))


def pack(cloud: GaussianCloud, version: int = 3, fractional_bits: int = 12,
         antialiased: bool = False) -> list[bytes]:
    """Return the parts of a file with all SH bands of the cloud in its order.

    Args:
        cloud: Gaussians with means below 2 ** 23 in magnitude; SH bands outside [-1, 1) saturate.
        version: 2 (coarser rotations, for old readers), 3, or 4 (zstd instead of gzip).
        fractional_bits: Resolution of positions, 2 ** -bits; reduced if the means would overflow 24 bits.
        antialiased: Flag of Gaussians that were trained with antialiasing.

    Raises:
        ValueError: The version is unknown, or the means are too large for any resolution.
    """
    if version not in VERSIONS or not 0 <= fractional_bits <= 24:
        raise ValueError(f'version={version}, fractional_bits={fractional_bits}: expected a version of {VERSIONS} and '
                         '0 to 24 bits; omit them for the defaults')
    raw = {name: value.astype(np.float64) for name, value in arrays_from_cloud(cloud).items()}
    limit = 2 ** 23 - 1
    extent = float(np.abs(raw['means']).max())
    if extent > limit:
        raise ValueError(f'means reach {extent:g}, .spz stores up to {limit}; scale the cloud down')
    bits = min(fractional_bits, math.floor(math.log2(limit / extent))) if extent else fractional_bits
    count, degree, flags = len(cloud), cloud.sh_degree, _ANTIALIASED * antialiased
    fixed = np.rint(raw['means'] * _FLIP_MEANS * 2.0 ** bits).astype('<i4')
    sh = raw['sh'] * _FLIP_SH[:raw['sh'].shape[1], None]
    quats = raw['quats'] * _FLIP_QUATS
    planes = [
        fixed.reshape(-1, 1).view(np.uint8)[:, :3],
        quantise.bytes_from_logits(raw['opacity_logits']),
        _to_bytes((sh[:, 0] * _COLOR_SCALE + 0.5) * 255),
        _to_bytes((raw['log_scales'] + 10) * 16),
        _pack_first_three(quats) if version == 2 else _pack_smallest_three(quats),
        _to_bytes(sh[:, 1:] * 128 + 128),
    ]
    planes = [np.ascontiguousarray(plane).tobytes() for plane in planes if plane.size]
    if version < 4:
        head = _HEADER.pack(MAGIC, version, count, degree, bits, flags, 0)
        stream = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
        return [stream.compress(head + b''.join(planes)), stream.flush()]
    import pyarrow

    head = _HEADER.pack(MAGIC, version, count, degree, bits, flags, len(planes))
    streams = [pyarrow.Codec('zstd').compress(plane, asbytes=True) for plane in planes]
    table = b''.join(struct.pack('<QQ', len(stream), len(plane)) for stream, plane in zip(streams, planes))
    return [head, struct.pack('<I12x', _HEADER_V4_BYTES), table, *streams]


def _to_bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _pack_first_three(quats: np.ndarray) -> np.ndarray:
    quats = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(quats[:, :1] < 0, -quats, quats)
    return _to_bytes(quats[:, 1:] * 127.5 + 127.5)


def _pack_smallest_three(quats: np.ndarray) -> np.ndarray:
    largest, three = quantise.drop_largest(quats[:, _XYZW])
    fields = np.rint(np.abs(three) * (511 * 2 ** 0.5)).astype(np.uint32) | np.where(np.signbit(three), 512, 0)
    packed = largest << 30 | fields[:, 0] << 20 | fields[:, 1] << 10 | fields[:, 2]
    return packed.astype('<u4').view(np.uint8)
