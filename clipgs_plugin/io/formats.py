"""Registry of the splat formats, and their detection by content or name."""
from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipgs_plugin.io import (
    compressed_ply,
    gltf,
    gltf_splats,
    inria_ply,
    ksplat,
    ply,
    render_modes,
    sog,
    splat,
    spz,
    trained_splats,
    usd,
)
from clipgs_plugin.io.files import refuse_damage
from clipgs_plugin.structures import GaussianCloud


@dataclass(frozen=True)
class Format:
    """A file format of splats."""

    name: str
    suffix: str                                                # suffix of written files, matched at the end of a name
    description: str
    read: Callable[[Path], GaussianCloud]
    write: Callable[..., None] | None = None                   # (cloud, path, **options)
    storage_order: Callable[[GaussianCloud], np.ndarray] | None = None  # None: the order of the cloud
    aliases: tuple[str, ...] = ()                              # other suffixes of files that are read
    shared: bool = False                                       # other files have the suffix, so no folder is searched


def _read_ply(path: Path) -> GaussianCloud:
    return _from_ply(ply.open_ply(path))


def _from_ply(file: ply.Ply) -> GaussianCloud:
    render_modes.warn_of_mode(file.path, render_modes.mode_of_comments(file.comments))
    return compressed_ply.from_ply(file) if compressed_ply.is_compressed(file) else inria_ply.from_ply(file)


FORMATS = {format.name: format for format in (
    Format('compressed-ply', '.compressed.ply', 'PlayCanvas compressed .ply', _read_ply, compressed_ply.write,
           compressed_ply.storage_order),
    Format('ply', '.ply', 'INRIA .ply', _read_ply, inria_ply.write),
    Format('splat', '.splat', 'antimatter15 .splat', splat.read, splat.write),
    Format('spz', '.spz', 'Niantic .spz', spz.read, spz.write),
    Format('sog', '.sog', 'PlayCanvas SOG, bundled', sog.read, sog.write, sog.storage_order),
    Format('sog-folder', sog.META, 'PlayCanvas SOG, a folder', sog.read, sog.write, sog.storage_order),
    Format('ksplat', '.ksplat', 'GaussianSplats3D .ksplat', ksplat.read),
    Format('glb', '.glb', 'glTF binary with KHR_gaussian_splatting', gltf_splats.read, gltf_splats.write, shared=True),
    Format('gltf', '.gltf', 'glTF with KHR_gaussian_splatting', gltf_splats.read, gltf_splats.write, shared=True),
    Format('usd', usd.SUFFIXES[0], 'OpenUSD with ParticleField3DGaussianSplat', usd.read, aliases=usd.SUFFIXES[1:],
           shared=True),
    Format('checkpoint', trained_splats.SUFFIXES[0], 'checkpoint of gsplat or Splatfacto', trained_splats.read,
           aliases=trained_splats.SUFFIXES[1:], shared=True),
)}
SUFFIXES = tuple(format.suffix for format in FORMATS.values() if not format.shared)  # those that tell a splat file
_SIGNATURES = {b'ply\n': 'ply', b'ply\r': 'ply', spz.GZIP: 'spz', spz.MAGIC: 'spz', sog.ZIP: 'sog', gltf.MAGIC: 'glb',
               usd.BINARY: 'usd', usd.TEXT: 'usd'}


def format_of_name(path: str | os.PathLike) -> Format:
    """Return the format whose suffix ends a name.

    Raises:
        ValueError: No format has this suffix.
    """
    name = Path(path).name.lower()
    for format in FORMATS.values():
        if name.endswith((format.suffix, *format.aliases)):
            return format
    known = [suffix for format in FORMATS.values() for suffix in (format.suffix, *format.aliases)]
    raise ValueError(f'{path}: no splat format has this suffix; known are {", ".join(known)}')


def find_splats(folder: str | os.PathLike, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the files below a folder whose names end in one of the suffixes, in any case, sorted."""
    return list(map(Path, walk_splats(folder, suffixes))) if os.path.isdir(folder) else []


def walk_splats(folder: str | os.PathLike, suffixes: Sequence[str] = SUFFIXES) -> Iterator[str]:
    """Yield the paths of :func:`find_splats` as they are found, which is quick for millions of files.

    Raises:
        OSError: A folder does not exist or cannot be read.
    """
    endings = tuple(suffix.lower() for suffix in suffixes)
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from walk_splats(entry.path, suffixes)
        elif entry.name.lower().endswith(endings) and entry.is_file():
            yield entry.path


def format_of_file(path: str | os.PathLike) -> Format:
    """Detect the format of a file by its signature, or by its suffix if no signature matches.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The path is a folder without a SOG, an empty file, or a file of an unknown format.
    """
    path = Path(path)
    if path.is_dir():
        if (path / sog.META).is_file():
            return FORMATS['sog-folder']
        raise ValueError(f'{path}: a folder without {sog.META}; name one splat file, or the folder of a SOG')
    if not path.exists():
        raise FileNotFoundError(f'{path}: the file does not exist; check the path')
    with path.open('rb') as file:
        head = file.read(4)
    if not head:
        raise ValueError(f'{path}: the file is empty; download or export it again')
    if head.startswith(sog.ZIP) and path.suffix.lower() in ('.usdz', *trained_splats.SUFFIXES):  # archives like a SOG
        return format_of_name(path)
    for signature, name in _SIGNATURES.items():
        if head.startswith(signature):
            return FORMATS[name]
    return format_of_name(path)


def read_gaussians(path: str | os.PathLike, clean: bool = False) -> GaussianCloud:
    """Read a splat file of any format in ``FORMATS``; a signature in the file takes precedence over its suffix.

    Args:
        path: Path of a file, or of the folder of an unbundled SOG.
        clean: Drop Gaussians with NaN, infinite or huge values or a zero quaternion, with a warning that counts them.

    Returns:
        Raw parameters in the INRIA convention and frame, float32 on the CPU. A lossless file is read bit for bit.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged or not a splat file, or it holds invalid Gaussians and ``clean`` is False. The
            message names the file, the field and the count.
    """
    path = Path(path)
    format = format_of_file(path)
    with refuse_damage(path, f'{format.description} file'), np.errstate(all='ignore'):  # the result is validated
        cloud = format.read(path)
    if clean:
        cloud, dropped = cloud.clean()
        if dropped:
            warnings.warn(f'{path}: dropped {dropped} of {dropped + len(cloud)} Gaussians with NaN, infinite or huge '
                          'values, or zero quaternions', stacklevel=2)
    return cloud.validate(str(path))


def parse_gaussians(data: bytes, name: str | os.PathLike) -> GaussianCloud:
    """Parse the content of a ``.ply`` splat file, such as that of a member of an archive.

    Args:
        data: Content of the file.
        name: Name of the file in errors.

    Raises:
        ValueError: The content is damaged or no .ply of Gaussians, or it holds invalid Gaussians.
    """
    path = Path(name)
    with refuse_damage(path, FORMATS['ply'].description + ' file'), np.errstate(all='ignore'):
        cloud = _from_ply(ply.parse_ply(path, data))
    return cloud.validate(str(path))


def write_gaussians(cloud: GaussianCloud, path: str | os.PathLike, **options) -> None:
    """Write a splat file in the format of its suffix, from float32 values. An incomplete file never appears.

    ``tools/convert_gaussians.py`` measures the error of the lossy formats.

    Args:
        cloud: Valid Gaussians in the INRIA convention.
        path: Path that ends in ``.ply``, ``.compressed.ply``, ``.splat``, ``.spz`` or ``.sog``, or
            ``FOLDER/meta.json`` for a SOG folder.
        **options: Options of the format: ``normals`` for .ply, ``version`` and ``fractional_bits`` for .spz,
            ``palette`` for SOG.

    Raises:
        ValueError: The suffix is unknown, the format is read-only, or the cloud is invalid.
    """
    format = format_of_name(path)
    if format.write is None:
        writable = ', '.join(other.suffix for other in FORMATS.values() if other.write)
        raise ValueError(f'{path}: {format.suffix} files cannot be written; write one of {writable}')
    format.write(cloud.validate(f'cloud for {path}'), Path(path), **options)
