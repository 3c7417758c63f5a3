"""The SOG of PlayCanvas ("spatially ordered Gaussians"): lossless WebP images and a ``meta.json``.

The files are bundled in one zip (``.sog``) or lie in a folder. Each pixel is a Gaussian. Positions have 16 bits over a
logarithmic range. Log scales and colours are indices into a codebook of 256 (version 2) or have 8 bits over a range
(version 1). Quaternions store the three smallest components of wxyz in 8 bits each. Higher SH bands are labels into a
palette of up to 65,536 entries.
Hand-written: no Python package documents both a byte-exact round trip and errors that name the damaged field.
"""
from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clipgs_plugin.io import quantise
from clipgs_plugin.io.files import arrays_from_cloud, cloud_from_arrays, write_whole
from clipgs_plugin.structures import GaussianCloud

META = 'meta.json'
ZIP = b'PK'
_COEFFICIENTS = {1: 3, 2: 8, 3: 15}
_PALETTE_WIDTH = 64  # palette entries per row of the centroid image
_FIRST_TAG = 252     # alpha of the quaternion image: 252 + index of the largest component
_MAX_PALETTE = 2 ** 16
# zipfile raises these on damaged archives, besides its own error.
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, struct.error,
               zlib.error)


class _Reader:
    """Access to the named files of a bundle or a folder, with errors that name both."""

    def __init__(self, path: Path, get: Callable[[str], bytes]):
        self.path, self.get = path, get

    def bytes(self, name: str) -> bytes:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f'{self.path}: {META} names the file {name!r}, expected a name without '
                             'folders; export it again')
        try:
            return self.get(name)
        except (KeyError, FileNotFoundError):
            raise ValueError(f'{self.path}: lacks {name}, expected every image that {META} names; export it '
                             'again') from None
        except _ZIP_ERRORS as error:
            raise ValueError(f'{self.path}: {name} cannot be read ({error}); download it again') from None

    def names(self, meta: dict, group: str, count: int = 1) -> list[str]:
        """Return the file names of a group of the metadata."""
        names = meta[group]['files']
        if len(names) != count:
            raise ValueError(f'{self.path}: {META} names {len(names)} files of {group}, expected {count}; export it '
                             'again')
        return names

    def pixels(self, name: str, count: int = 0) -> np.ndarray:
        """Return the RGBA pixels of an image, (pixels, 4), checking for at least ``count`` pixels."""
        return self.image(name, count).reshape(-1, 4)

    def image(self, name: str, count: int = 0) -> np.ndarray:
        """Return the RGBA pixels of an image, (height, width, 4), checking for at least ``count`` pixels."""
        from PIL import Image

        data = self.bytes(name)
        try:
            with Image.open(io.BytesIO(data)) as image:
                pixels = np.asarray(image.convert('RGBA'))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f'{self.path}: {name} is not a readable image ({error}); download it again') from None
        if pixels.shape[0] * pixels.shape[1] < count:
            raise ValueError(f'{self.path}: {META} promises {count} Gaussians, {name} holds '
                             f'{pixels.shape[0] * pixels.shape[1]} pixels; download or export it again')
        return pixels


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
    with archive:
        return _read(_Reader(path, archive.read), META)


def _read(reader: _Reader, name: str) -> GaussianCloud:
    try:
        meta = json.loads(reader.bytes(name))
        version = meta.get('version', 1)
        if version not in (1, 2):
            raise ValueError(f'{reader.path}: SOG version {version}, expected 1 or 2; export it as version 2')
        return _decode(reader, meta, version)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{reader.path}: {name} is not JSON ({error}); download it again') from None
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f'{reader.path}: {name} does not describe a SOG ({type(error).__name__}: {error}); export it '
                         'again') from None


def _codebook(values: list[float | None]) -> np.ndarray:
    """Return 256 values; extrapolate a first value of null, which some writers produce."""
    first, *rest = values
    if first is None:
        first = rest[0] + (rest[0] - rest[-1]) / len(values)
    return np.array([first, *rest], np.float64)


def _decode(reader: _Reader, meta: dict, version: int) -> GaussianCloud:
    """Build the cloud from the images that ``meta`` names."""
    count = int(meta['count'] if version == 2 else meta['means']['shape'][0])

    def values(group: dict, pixels: np.ndarray) -> np.ndarray:
        """Map 8-bit channels through a codebook (version 2) or to a range (version 1)."""
        if version == 2:
            codebook = _codebook(group['codebook'])
            if len(pixels) and pixels.max() >= len(codebook):
                raise ValueError(f'{reader.path}: index {pixels.max()} in a codebook of {len(codebook)}; it is '
                                 'damaged, export it again')
            return codebook[pixels]
        low, high = np.array(group['mins'], np.float64), np.array(group['maxs'], np.float64)
        return low + (high - low) * (pixels / 255)

    low, high = (reader.pixels(name, count)[:count, :3].astype(np.uint32) for name in reader.names(meta, 'means', 2))
    lowest, highest = (np.array(meta['means'][end], np.float64) for end in ('mins', 'maxs'))
    means = lowest + (highest - lowest) * ((high << 8 | low) / 65535)
    quats = reader.pixels(*reader.names(meta, 'quats'), count)[:count]
    largest = quats[:, 3].astype(np.int64) - _FIRST_TAG
    if (largest < 0).any():
        raise ValueError(f'{reader.path}: quats have an invalid tag in {int((largest < 0).sum())} of {count} '
                         'Gaussians; the image was probably compressed with loss, export it as lossless WebP')
    color = reader.pixels(*reader.names(meta, 'sh0'), count)[:count]
    if version == 2:
        dc, logits = values(meta['sh0'], color[:, :3]), quantise.logits_from_bytes(color[:, 3])
    else:
        both = values(meta['sh0'], color)
        dc, logits = both[:, :3], both[:, 3]
    scales = reader.pixels(*reader.names(meta, 'scales'), count)[:count, :3]
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
    palette = reader.image(centroids)[:, :, :3]
    coefficients = palette.shape[1] // _PALETTE_WIDTH
    if palette.shape[1] % _PALETTE_WIDTH or coefficients not in _COEFFICIENTS.values() or (
            'bands' in meta['shN'] and _COEFFICIENTS.get(meta['shN']['bands']) != coefficients):
        raise ValueError(f'{reader.path}: {centroids} is {palette.shape[1]} pixels wide, expected {_PALETTE_WIDTH} '
                         f'times one of {[*_COEFFICIENTS.values()]} coefficients, matching the bands in {META}; '
                         'export it again')
    palette = palette.reshape(-1, coefficients, 3)
    pixels = reader.pixels(labels, count)[:count].astype(np.int64)
    label = pixels[:, 0] | pixels[:, 1] << 8
    if count and label.max() >= len(palette):
        raise ValueError(f'{reader.path}: SH label {label.max()} in a palette of {len(palette)}; it is damaged, '
                         'export it again')
    return values(palette)[label]


def storage_order(cloud: GaussianCloud) -> np.ndarray:
    """Return the index in the cloud of each stored Gaussian, (N,); similar neighbouring pixels compress better."""
    return quantise.morton_order(arrays_from_cloud(cloud)['means'])


def write(cloud: GaussianCloud, path: Path, palette: int = _MAX_PALETTE) -> None:
    """Write version 2 in :func:`storage_order`, as a bundle, or as a folder if ``path`` names a ``meta.json``.

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
        for name, data in files.items():  # meta.json is last, so a folder that has one is complete
            write_whole(path if name == META else path.parent / name, [data])
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # no timestamp: equal clouds give equal files
    write_whole(path, [buffer.getbuffer()])


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
    scale_codebook, scales = _quantise(raw['log_scales'])
    color_codebook, color = _quantise(raw['sh'][:, 0])
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
        centroids, labels = _cluster(raw['sh'][:, 1:].reshape(count, -1), palette)
        codebook, entries = _quantise(centroids.reshape(-1, coefficients, 3))
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


def _quantise(values: np.ndarray, size: int = 256, rounds: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Fit a codebook of ``size`` ascending values and return it with indices into it.

    Up to ``size`` distinct values are kept exactly. Otherwise Lloyd's algorithm runs on a histogram with weights
    count ** (1/3). Without the exponent, the few large Gaussians that fill an image would share few entries; without
    weights, the many small ones would.
    """
    values = values.astype(np.float32)
    distinct = np.unique(values).astype(np.float64)
    if len(distinct) <= size:
        codebook = np.concatenate([distinct, np.full(size - len(distinct), distinct[-1])])
        return codebook, np.searchsorted(distinct, values).astype(np.uint8)
    low, high, bins = distinct[0], distinct[-1], 16 * size
    flat = values.ravel().astype(np.float64)
    cells = np.minimum((flat - low) / (high - low) * bins, bins - 1).astype(np.int64)
    counts = np.bincount(cells, minlength=bins)
    used = counts > 0
    centres = np.bincount(cells, flat, bins)[used] / counts[used]
    weights = counts[used] ** (1 / 3)
    mass = np.concatenate([[0], np.cumsum(weights)])
    moment = np.concatenate([[0], np.cumsum(weights * centres)])
    share = (np.arange(size) + 0.5) / size
    quantiles = centres[np.searchsorted(mass[1:], share * mass[-1])]
    codebook = (quantiles + low + (high - low) * share) / 2  # entries for the bulk and the tails
    for _ in range(rounds):
        edges = np.concatenate([[0], np.searchsorted(centres, (codebook[1:] + codebook[:-1]) / 2), [len(centres)]])
        filled = np.diff(edges) > 0
        codebook[filled] = np.diff(moment[edges])[filled] / np.diff(mass[edges])[filled]
    return codebook, np.searchsorted((codebook[1:] + codebook[:-1]) / 2, values).astype(np.uint8)


def _cluster(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cluster points, (N, D), into at most ``size`` centroids by halving along the widest axis.

    k-means fits slightly better, but takes minutes instead of seconds for a palette of this size.

    Returns:
        Centroids, (M, D), and the index of the centroid of each point, (N,).
    """
    if len(points) <= size:
        return points, np.arange(len(points))
    labels = np.empty(len(points), np.int64)
    centroids = []
    stack = [(np.arange(len(points)), size)]
    while stack:
        index, leaves = stack.pop()
        block = points[index]
        leaves = min(leaves, len(index))
        axis = np.ptp(block, axis=0).argmax()
        if leaves == 1 or block[:, axis].min() == block[:, axis].max():
            labels[index] = len(centroids)
            centroids.append(block.mean(0))
            continue
        half = len(index) * (leaves // 2) // leaves
        order = index[np.argpartition(block[:, axis], half)]
        stack += [(order[:half], leaves // 2), (order[half:], leaves - leaves // 2)]
    return np.array(centroids), labels
