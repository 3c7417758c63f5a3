"""The SOG of PlayCanvas ("spatially ordered Gaussians"): lossless WebP images and a ``meta.json``.

The files are bundled in one zip (``.sog``) or lie in a folder. Each pixel is a Gaussian. Positions have 16 bits over a
logarithmic range. Log scales and colours are indices into a codebook of 256 (version 2) or have 8 bits over a range
(version 1). Quaternions store the three smallest components of wxyz in 8 bits each. Higher SH bands are labels into a
palette of up to 65,536 entries.
Hand-written: no Python package documents both a byte-exact round trip and errors that name the damaged field.
"""
from __future__ import annotations

import hashlib
import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise
from clipgs_plugin.io.checked_json import check_types, read_json
from clipgs_plugin.io.codebooks import fit_codebook, halve
from clipgs_plugin.io.files import arrays_from_cloud, check_ratio, cloud_from_arrays, write_whole
from clipgs_plugin.structures import GaussianCloud

META = 'meta.json'
ZIP = b'PK\x03\x04'
# Images that this module writes, with the hash that tells them from those of another object, and temporary ones.
_IMAGE = re.compile(r'\.?(means_[lu]|quats|scales|sh0|shN_(centroids|labels))(\.[0-9a-f]{16})?\.webp(\.tmp)?')
_COEFFICIENTS = {1: 3, 2: 8, 3: 15}
_PALETTE_WIDTH = 64  # palette entries per row of the centroid image
_FIRST_TAG = 252     # alpha of the quaternion image: 252 + index of the largest component
_MAX_PALETTE = 2 ** 16
_LARGEST_PALETTE = _MAX_PALETTE * max(_COEFFICIENTS.values())  # pixels
_SPARE_PIXELS = 2 ** 20  # of an image beyond those that its count needs
_THREE = [float] * 3
_PLANE = {'files': [str]}
_CODEBOOK = {'codebook': [(float, None)], 'files': [str]}  # some writers produce null for the first value
_RANGE = {'mins': (_THREE, [float] * 4, float), 'maxs': (_THREE, [float] * 4, float), 'files': [str]}
_POSITIONS = {'mins': _THREE, 'maxs': _THREE, 'files': [str] * 2}
_SCHEMAS = {
    1: {'means': {**_POSITIONS, 'shape': [int] * 2}, 'quats': _PLANE, 'scales': _RANGE, 'sh0': _RANGE,
        'shN?': ({**_RANGE, 'bands?': int}, None)},
    2: {'count': int, 'means': _POSITIONS, 'quats': _PLANE, 'scales': _CODEBOOK, 'sh0': _CODEBOOK,
        'shN?': ({**_CODEBOOK, 'bands?': int}, None)},
}
# zipfile raises these on damaged archives, besides its own error.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, struct.error,
               zlib.error)


class _Reader:
    """Access to the named files of a bundle or a folder, with errors that name both."""

    def __init__(self, path: Path, get: Callable[[str], bytes]):
        self.path, self.get = path, get

    def bytes(self, name: str) -> bytes:
        if Path(name).name != name:
            raise ValueError(f'{self.path}: {META} names the file {name[:80]!r}, expected a name without '
                             'folders; export it again')
        try:
            return self.get(name)
        except (KeyError, FileNotFoundError):
            raise ValueError(f'{self.path}: lacks {name[:80]}, expected every image that {META} names; export it '
                             'again') from None
        except _ZIP_ERRORS as error:
            if str(self.path) in str(error):
                raise
            raise ValueError(f'{self.path}: {name[:80]} cannot be read ({error!s:.200}); download it again') from None

    def names(self, meta: dict, group: str, count: int = 1) -> list[str]:
        """Return the file names of a group of the metadata."""
        names = meta[group]['files']
        if len(names) != count:
            raise ValueError(f'{self.path}: {META} names {len(names)} files of {group}, expected {count}; export it '
                             'again')
        return names

    def pixels(self, name: str, count: int) -> np.ndarray:
        """Return the RGBA pixels of the first ``count`` Gaussians, (count, 4)."""
        data = self.bytes(name)
        pixels = self.image(name, data, 4 * count + _SPARE_PIXELS).reshape(-1, 4)
        if len(pixels) < count:
            raise ValueError(f'{self.path}: {META} promises {count} Gaussians, {name} holds {len(pixels)} pixels; '
                             'download or export it again')
        return pixels[:count]

    def image(self, name: str, data: bytes, largest: int) -> np.ndarray:
        """Return the RGBA pixels of an image of at most ``largest`` pixels, (height, width, 4)."""
        from PIL import Image

        width, height = _webp_size(data)
        if not width:
            raise ValueError(f'{self.path}: {name} is not a WebP image; download or export it again')
        if width * height > largest:
            raise ValueError(f'{self.path}: {name} has {width} x {height} pixels, expected at most {largest}; it is '
                             'damaged, download or export it again')
        try:
            with Image.open(io.BytesIO(data), formats=['WEBP']) as image:
                return np.asarray(image.convert('RGBA'))
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f'{self.path}: {name} is not a readable image ({error}); download it again') from None


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height from the header of a WebP image, or zeros; Pillow allocates its pixels to find them."""
    if len(data) < 30 or data[:4] != b'RIFF' or data[8:12] != b'WEBP':
        return 0, 0
    kind, body = data[12:16], data[20:30]
    if kind == b'VP8L':
        bits = int.from_bytes(body[1:5], 'little')
        return (bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1
    if kind == b'VP8X':
        return int.from_bytes(body[4:7], 'little') + 1, int.from_bytes(body[7:10], 'little') + 1
    if kind == b'VP8 ':
        return int.from_bytes(body[6:8], 'little') & 0x3fff, int.from_bytes(body[8:10], 'little') & 0x3fff
    return 0, 0


def read(path: Path) -> GaussianCloud:
    """Read version 1 or 2 from a bundle, a folder, or the ``meta.json`` of a folder."""
    if path.is_dir() or path.suffix == '.json':
        folder = path if path.is_dir() else path.parent
        return _read(_Reader(path, lambda name: (folder / name).read_bytes()), META if path.is_dir() else path.name)
    try:
        archive = zipfile.ZipFile(path)
    except _ZIP_ERRORS as error:
        raise ValueError(f'{path}: damaged zip archive ({error}); it is probably truncated, download it again'
                         ) from None

    def member(name: str) -> bytes:
        info = archive.getinfo(name)
        check_ratio(path, f'{name} holds', info.file_size, info.compress_size)
        with archive.open(info) as file:
            return file.read(info.file_size)  # read() would inflate more than the size that the archive declares

    with archive:
        return _read(_Reader(path, member), META)


def _read(reader: _Reader, name: str) -> GaussianCloud:
    """Check the metadata and build the cloud."""
    where = f'{reader.path}: {name}' if reader.path.name != name else str(reader.path)
    meta = read_json(reader.bytes(name), where, dict)
    version = meta.get('version', 1)
    if version not in (1, 2) or isinstance(version, bool):
        raise ValueError(f'{reader.path}: SOG version {ascii(version)[:80]}, expected 1 or 2; export it as version 2')
    version = int(version)
    check_types(meta, _SCHEMAS[version], where)
    count = meta['count'] if version == 2 else meta['means']['shape'][0]
    if count < 1:
        raise ValueError(f'{where} has a count of {count}, the file holds no Gaussians; export it again')
    return _decode(reader, meta, version, count)


def _codebook(path: Path, values: list[float | None]) -> np.ndarray:
    """Return 256 values; extrapolate a first value of null, which some writers produce."""
    first, *rest = values or [None]
    if None in rest or (first is None and not rest):
        raise ValueError(f'{path}: a codebook of {len(values)} has null or nothing where a number belongs; export it '
                         'again')
    if first is None:
        first = rest[0] + (rest[0] - rest[-1]) / len(values)
    return np.array([first, *rest], np.float64)


def _decode(reader: _Reader, meta: dict, version: int, count: int) -> GaussianCloud:
    """Build the cloud from the images that ``meta`` names."""
    def values(group: dict, pixels: np.ndarray) -> np.ndarray:
        """Map 8-bit channels through a codebook (version 2) or to a range (version 1)."""
        if version == 2:
            codebook = _codebook(reader.path, group['codebook'])
            if pixels.max() >= len(codebook):
                raise ValueError(f'{reader.path}: index {pixels.max()} in a codebook of {len(codebook)}; it is '
                                 'damaged, export it again')
            return codebook[pixels]
        low, high = np.array(group['mins'], np.float64), np.array(group['maxs'], np.float64)
        return low + (high - low) * (pixels / 255)

    positions = reader.names(meta, 'means', 2)
    held = sum(len(reader.bytes(name)) for name in positions)
    check_ratio(reader.path, f'{" and ".join(positions)} promise {count} Gaussians,', 8 * count, held)
    low, high = (reader.pixels(name, count)[:, :3].astype(np.uint32) for name in positions)
    lowest, highest = (np.array(meta['means'][end], np.float64) for end in ('mins', 'maxs'))
    means = lowest + (highest - lowest) * ((high << 8 | low) / 65535)
    quats = reader.pixels(*reader.names(meta, 'quats'), count)
    largest = quats[:, 3].astype(np.int64) - _FIRST_TAG
    if (largest < 0).any():
        raise ValueError(f'{reader.path}: quats have an invalid tag in {int((largest < 0).sum())} of {count} '
                         'Gaussians; the image was probably compressed with loss, export it as lossless WebP')
    color = reader.pixels(*reader.names(meta, 'sh0'), count)
    if version == 2:
        dc, logits = values(meta['sh0'], color[:, :3]), quantise.logits_from_bytes(color[:, 3])
    else:
        both = values(meta['sh0'], color)
        dc, logits = both[:, :3], both[:, 3]
    scales = reader.pixels(*reader.names(meta, 'scales'), count)[:, :3]
    sh = [dc[:, None]]
    if meta.get('shN'):
        sh.append(_decode_bands(reader, meta, count, lambda pixels: values(meta['shN'], pixels)))
    return cloud_from_arrays(
        means=np.sign(means) * np.expm1(np.abs(means)),
        quats=quantise.restore_largest(largest, (quats[:, :3] / 255 * 2 - 1) / 2 ** 0.5),
        log_scales=values(meta['scales'], scales),
        opacity_logits=logits,
        sh=np.concatenate(sh, axis=1))


def _decode_bands(reader: _Reader, meta: dict, count: int, values: Callable) -> np.ndarray:
    """Return the higher SH bands, (count, coefficients, 3), by looking up each label in the palette."""
    centroids, labels = reader.names(meta, 'shN', 2)
    palette = reader.image(centroids, reader.bytes(centroids), _LARGEST_PALETTE)[:, :, :3]
    coefficients = palette.shape[1] // _PALETTE_WIDTH
    if palette.shape[1] % _PALETTE_WIDTH or coefficients not in _COEFFICIENTS.values() or (
            'bands' in meta['shN'] and _COEFFICIENTS.get(meta['shN']['bands']) != coefficients):
        raise ValueError(f'{reader.path}: {centroids} is {palette.shape[1]} pixels wide, expected {_PALETTE_WIDTH} '
                         f'times one of {[*_COEFFICIENTS.values()]} coefficients, matching the bands in {META}; '
                         'export it again')
    palette = palette.reshape(-1, coefficients, 3)
    pixels = reader.pixels(labels, count).astype(np.int64)
    label = pixels[:, 0] | pixels[:, 1] << 8
    if label.max() >= len(palette):
        raise ValueError(f'{reader.path}: SH label {label.max()} in a palette of {len(palette)}; it is damaged, '
                         'export it again')
    return values(palette)[label]


def storage_order(cloud: GaussianCloud) -> np.ndarray:
    """Return the index in the cloud of each stored Gaussian, (N,); similar neighbouring pixels compress better."""
    return quantise.morton_order(arrays_from_cloud(cloud)['means'])


def write(cloud: GaussianCloud, path: Path, palette: int = _MAX_PALETTE) -> None:
    """Write version 2 in :func:`storage_order`, as a bundle, or as a folder if ``path`` names a ``meta.json``.

    A folder that holds another object keeps it until the new one is complete; the new images then have other names.

    Args:
        cloud: Gaussians of any SH degree.
        path: Path of a ``.sog`` file, or ``FOLDER/meta.json``.
        palette: Number of palette entries for SH bands. With the default, up to 65,536 Gaussians have their own entry.

    Raises:
        ValueError: ``palette`` is outside 1 to 65,536.
    """
    if not 1 <= palette <= _MAX_PALETTE:
        raise ValueError(f'palette={palette}: expected 1 to {_MAX_PALETTE} entries; omit it for the default')
    files = _encode(cloud, palette)
    if path.suffix == '.json':
        _write_folder(files, path)
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # no timestamp: equal clouds give equal files
    write_whole(path, [buffer.getbuffer()])


def _write_folder(files: dict[str, bytes], path: Path) -> None:
    """Write ``meta.json`` last, and no image over another: until then, an old ``meta.json`` names the old images.

    An image whose name is taken by another one gets a hash of its content into its name. Images of the library that no
    ``meta.json`` of the folder names any more are deleted in the end.
    """
    folder, meta = path.parent, json.loads(files[META])
    for name, data in files.items():
        if name == META:
            continue
        used = folder / name
        if used.exists() and used.read_bytes() != data:
            used = folder / f'{used.stem}.{hashlib.sha256(data).hexdigest()[:16]}{used.suffix}'
            group = next(group for group in meta.values() if isinstance(group, dict) and name in group['files'])
            group['files'][group['files'].index(name)] = used.name
        write_whole(used, [data])
    write_whole(path, [json.dumps(meta).encode()])
    named = b''.join(other.read_bytes() for other in folder.glob(f'*{META}'))
    for file in folder.iterdir():
        if _IMAGE.fullmatch(file.name) and f'"{file.name}"'.encode() not in named:
            file.unlink(missing_ok=True)


def _encode(cloud: GaussianCloud, palette: int) -> dict[str, bytes]:
    """Return the content of every file by name."""
    order = storage_order(cloud)
    raw = {name: value[order].astype(np.float64) for name, value in arrays_from_cloud(cloud).items()}
    count = len(cloud)
    width = 4 * math.ceil(math.sqrt(count) / 4)
    opaque = np.full((count, 1), 255, np.uint8)

    def webp(pixels: np.ndarray, width: int = width) -> bytes:
        from PIL import Image

        height = -(-len(pixels) // width)
        padded = np.zeros((height * width, 4), np.uint8)
        padded[:len(pixels)] = pixels
        buffer = io.BytesIO()
        # exact: keep colours below alpha 0, which hold data
        Image.fromarray(padded.reshape(height, width, 4)).save(buffer, 'WEBP', lossless=True, exact=True)
        return buffer.getvalue()

    means = np.sign(raw['means']) * np.log1p(np.abs(raw['means']))
    lowest, highest = means.min(0), means.max(0)
    steps = np.rint((means - lowest) / np.where(highest > lowest, highest - lowest, 1) * 65535).astype(np.uint32)
    largest, three = quantise.drop_largest(raw['quats'])
    quats = np.rint((three * 2 ** 0.5 + 1) / 2 * 255).astype(np.uint8)
    scale_codebook, scales = fit_codebook(raw['log_scales'])
    color_codebook, color = fit_codebook(raw['sh'][:, 0])
    alpha = quantise.bytes_from_logits(raw['opacity_logits'])
    files = {
        'means_l.webp': webp(np.hstack([(steps & 255).astype(np.uint8), opaque])),
        'means_u.webp': webp(np.hstack([(steps >> 8).astype(np.uint8), opaque])),
        'quats.webp': webp(np.hstack([quats, (largest[:, None] + _FIRST_TAG).astype(np.uint8)])),
        'scales.webp': webp(np.hstack([scales, opaque])),
        'sh0.webp': webp(np.hstack([color, alpha[:, None]])),
    }
    meta = {
        'version': 2,
        'count': count,
        'means': {'mins': lowest.tolist(), 'maxs': highest.tolist(), 'files': ['means_l.webp', 'means_u.webp']},
        'scales': {'codebook': scale_codebook.tolist(), 'files': ['scales.webp']},
        'quats': {'files': ['quats.webp']},
        'sh0': {'codebook': color_codebook.tolist(), 'files': ['sh0.webp']},
    }
    if cloud.sh_degree:
        coefficients = _COEFFICIENTS[cloud.sh_degree]
        centroids, labels = halve(raw['sh'][:, 1:].reshape(count, -1), palette)
        codebook, entries = fit_codebook(centroids.reshape(-1, coefficients, 3))
        rows = -(-len(entries) // _PALETTE_WIDTH)
        image = np.full((rows * _PALETTE_WIDTH, coefficients, 4), 255, np.uint8)
        image[:, :, :3] = 0
        image[:len(entries), :, :3] = entries
        files['shN_centroids.webp'] = webp(image.reshape(-1, 4), _PALETTE_WIDTH * coefficients)
        label = np.stack([labels & 255, labels >> 8, np.zeros_like(labels)], axis=1).astype(np.uint8)
        files['shN_labels.webp'] = webp(np.hstack([label, opaque]))
        meta['shN'] = {'count': len(entries), 'bands': cloud.sh_degree, 'codebook': codebook.tolist(),
                       'files': ['shN_centroids.webp', 'shN_labels.webp']}
    return {**files, META: json.dumps(meta).encode()}
