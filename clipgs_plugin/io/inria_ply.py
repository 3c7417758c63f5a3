"""The ``.ply`` of the INRIA code (Kerbl et al., 2023), the output of most training codes: raw parameters, lossless."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from clipgs_plugin.io import ply, quantise
from clipgs_plugin.io.files import arrays_from_cloud, refuse_damage
from clipgs_plugin.structures import GaussianCloud

_MEANS = ['x', 'y', 'z']
_NORMALS = ['nx', 'ny', 'nz']  # always zero, but required by the original viewer
_DC = ['f_dc_0', 'f_dc_1', 'f_dc_2']
_RGB = ['red', 'green', 'blue']  # in 8 bits, in place of f_dc, from Splatfacto's export with ply_color_mode=rgb
_OPACITY = ['opacity']
_SCALES = ['scale_0', 'scale_1', 'scale_2']
_QUATS = ['rot_0', 'rot_1', 'rot_2', 'rot_3']
_REST_COUNTS = (0, 9, 24, 45)  # f_rest properties of SH degree 0, 1, 2, 3
_TYPES = [np.dtype(code) for code in ('<i1', '<u1', '<i2', '<u2', '<i4', '<u4', '<f4', '<f8')]  # of further properties


def rest_names(count: int) -> list[str]:
    """Return the property names of ``count`` SH coefficients above the constant band."""
    return [f'f_rest_{i}' for i in range(count)]


def count_rest(path: Path, properties: tuple[str, ...]) -> int:
    """Count the ``f_rest`` properties of an element.

    Raises:
        ValueError: The properties do not match an SH degree from 0 to 3.
    """
    found = {name for name in properties if re.fullmatch(r'f_rest_\d+', name)}
    if len(found) not in _REST_COUNTS or found != set(rest_names(len(found))):
        raise ValueError(f'{path}: {len(found)} f_rest properties, expected f_rest_0 onwards, {_REST_COUNTS} of '
                         'them for SH degree 0, 1, 2, 3; export it again')
    return len(found)


def from_ply(file: ply.Ply) -> GaussianCloud:
    """Read properties in any order, SH degree 0 to 3, binary or ascii; skip unknown properties.

    Raises:
        ValueError: The file holds a mesh or a point cloud, lacks a property, or has a wrong number of SH properties.
    """
    path, properties = file.path, file['vertex'].properties if 'vertex' in file else ()
    types = file['vertex'].dtype if properties else None
    rgb = _DC[0] not in properties and all(name in properties and types[name] == np.uint8 for name in _RGB)
    required = [*_MEANS, *([] if rgb else _DC), *_OPACITY, *_SCALES, *_QUATS]
    missing = [name for name in required if name not in properties]
    if set(missing) >= {*_OPACITY, *_SCALES, *_QUATS}:
        raise ValueError(f'{path}: holds a mesh or a point cloud, not Gaussians: its vertices have '
                         f'{", ".join(properties[:20])[:300] or "no scalar properties"}, expected f_dc, opacity, scale '
                         'and rot; name a splat file')
    if missing:
        raise ValueError(f'{path}: vertex lacks the property {", ".join(missing)} of a Gaussian; export it again as an '
                         'INRIA .ply')
    rest = count_rest(path, properties)
    wrong = [name for name in [*required, *rest_names(rest)] if types[name].kind != 'f']
    if wrong:
        raise ValueError(f'{path}: vertex property {", ".join(wrong)} is not of type float or double; export it again')
    table = file.read()['vertex']
    count, bands = len(table), rest // 3 + 1
    # The file stores all coefficients of red, then green, then blue; in the cloud colour is the last dimension.
    names = [name for k in range(bands) for name in
             (_DC if k == 0 else [f'f_rest_{channel * (bands - 1) + k - 1}' for channel in range(3)])]
    field = lambda names: torch.from_numpy(ply.columns(table, names))  # noqa: E731
    sh = field(names).view(count, bands, 3) if not rgb else torch.from_numpy(
        quantise.dc_from_rgb(ply.columns(table, _RGB) / 255).astype(np.float32))[:, None]
    return GaussianCloud(means=field(_MEANS), quats=field(_QUATS), log_scales=field(_SCALES),
                         opacity_logits=field(_OPACITY).view(count), sh=sh)


def further_columns(path: Path) -> dict[str, np.ndarray]:
    """Read the scalar properties of the Gaussians of an INRIA ``.ply`` that are none of a cloud's, (N,) by name.

    Trainers write ids or features of segmentations there. Their values are not checked. A compressed .ply has none.

    Raises:
        ValueError: The file is damaged, or not a .ply.
    """
    with refuse_damage(path, '.ply'):
        file = ply.open_ply(path)
        properties = file['vertex'].properties if 'vertex' in file else ()
        own = {*_MEANS, *_NORMALS, *_DC, *_OPACITY, *_SCALES, *_QUATS, *rest_names(_REST_COUNTS[-1])}
        names = [name for name in properties if name not in own]
        if not names or not {*_MEANS, *_SCALES} <= set(properties):  # a compressed .ply packs its Gaussians
            return {}
        table = file.read()['vertex']
        return {name: table[name] for name in names}


def write(cloud: GaussianCloud, path: Path, normals: bool = True, comments: Sequence[str] = (),
          columns: Mapping[str, np.ndarray] | None = None) -> None:
    """Write float32 in the property order of the INRIA code.

    Args:
        cloud: Gaussians of any SH degree.
        path: File to write.
        normals: Include zero normals, which only the original viewer requires.
        comments: Lines of the header in ascii, such as ``'SplatRenderMode: mip'``.
        columns: Further properties by name, (N,) numbers of at most 32 bits or float64.

    Raises:
        ValueError: A further property has another length, the name of a property of Gaussians, or a type that a .ply
            does not have.
    """
    raw = arrays_from_cloud(cloud)
    rest = np.ascontiguousarray(raw['sh'][:, 1:].transpose(0, 2, 1)).reshape(len(cloud), -1)
    names = [*_MEANS, *(_NORMALS if normals else []), *_DC, *rest_names(rest.shape[1]), *_OPACITY, *_SCALES, *_QUATS]
    parts = [raw['means'], np.zeros((len(cloud), 3 if normals else 0), np.float32), raw['sh'][:, 0], rest,
             raw['opacity_logits'][:, None], raw['log_scales'], raw['quats']]
    table = ply.structured(np.concatenate(parts, axis=1, dtype='<f4'), names)
    if columns:
        table = _widened(table, columns, path)
    ply.write(path, {'vertex': table}, comments)


def _widened(table: np.ndarray, columns: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """Return a structured array with further columns."""
    for name, values in columns.items():
        if name in table.dtype.names or values.shape != table.shape or values.dtype.newbyteorder('<') not in _TYPES:
            raise ValueError(f'{path}: a further property {name!r} of {values.dtype} and shape {values.shape}, '
                             f'expected numbers of at most 32 bits or float64, {table.shape}, and a new name')
    wide = np.empty(len(table), [*table.dtype.descr, *((name, values.dtype.newbyteorder('<'))
                                                       for name, values in columns.items())])
    for name in table.dtype.names:
        wide[name] = table[name]
    for name, values in columns.items():
        wide[name] = values
    return wide
