"""Gaussians in glTF by ``KHR_gaussian_splatting``: activated values, xyzw quaternions, transforms of nodes.

A primitive of points has one accessor an attribute, of floats or normalised integers, or one block of SPZ by the draft
``KHR_gaussian_splatting_compression_spz_2``. All primitives of the default scene are concatenated. The frame of glTF is
left, up, forward: the INRIA frame after a half turn about z.

Source: KhronosGroup/glTF, extensions/2.0/Khronos/KHR_gaussian_splatting (release candidate of July 2026).
"""
from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgs_plugin.io import gltf, quantise, spz
from clipgs_plugin.io.checked_json import check_types
from clipgs_plugin.io.color_spaces import LINEAR, SRGB, from_linear, linear_curve, to_linear
from clipgs_plugin.io.files import arrays_from_cloud, check_ratio, cloud_from_arrays, write_whole
from clipgs_plugin.io.placement import join, place
from clipgs_plugin.structures import GaussianCloud

EXTENSION = 'KHR_gaussian_splatting'
SPZ_EXTENSION = 'KHR_gaussian_splatting_compression_spz_2'
ENCODINGS = ('float', 'integer', 'spz')
_KNOWN = {EXTENSION, SPZ_EXTENSION, 'KHR_mesh_quantization'}
_FLIP_MEANS = np.array([-1, -1, 1], np.float32)
_TURN = np.diag([-1.0, -1, 1, 1])
_FLIP_QUATS = np.array([1, -1, -1, 1], np.float32)  # the half turn q -> k q / k; the sign of an axis has no effect
# Signs of y, z, x; xy, yz, zz, xz, xx-yy; ... under x -> -x, y -> -y.
_FLIP_SH = np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1], np.float32)
_XYZW, _WXYZ = [1, 2, 3, 0], [3, 0, 1, 2]
_COEFFICIENT = re.compile(EXTENSION + r':SH_DEGREE_(\d+)_COEF_(\d+)')


def read(path: Path) -> GaussianCloud:
    """Read every splat primitive of the default scene into the INRIA frame.

    Raises:
        ValueError: The file is damaged, holds no Gaussians, requires another extension, or a node shears or mirrors.
    """
    file = gltf.open_gltf(path)
    unknown = sorted(set(file.document.get('extensionsRequired', [])) - _KNOWN)
    places = [(node, primitive, matrix) for node, mesh, matrix in file.instances()
              for primitive in file.item('meshes', mesh)['primitives'] if EXTENSION in primitive.get('extensions', {})]
    if not places:
        raise ValueError(f'{path}: holds a mesh or an empty scene, not Gaussians: no primitive of its default scene '
                         f'has the extension {EXTENSION}; name a splat file')
    if unknown:
        raise ValueError(f'{path}: requires the extension {", ".join(unknown)[:200]}, which is not read here; export '
                         'it without')
    sizes = [_promised_bytes(file, primitive) for _, primitive, _ in places]
    check_ratio(path, 'its nodes promise Gaussians of', sum(sizes), file.held)
    return join([place(_read_primitive(file, primitive), _TURN @ matrix @ _TURN, f'{path}: nodes[{node}]')
                 for node, primitive, matrix in places])


def _promised_bytes(file: gltf.Gltf, primitive: dict[str, Any]) -> int:
    """Return the bytes of a primitive once it is read, as its accessors promise."""
    return sum(4 * gltf.TYPES.get(accessor['type'], 4) * max(0, accessor['count'])
               for accessor in (file.item('accessors', index) for index in primitive['attributes'].values()))


def _read_primitive(file: gltf.Gltf, primitive: dict[str, Any]) -> GaussianCloud:
    """Read one primitive in its local space, with the axes of INRIA."""
    path, extension = file.path, primitive['extensions'][EXTENSION]
    check_types(extension, {'kernel?': str, 'colorSpace?': str, 'extensions?': dict}, f'{path}: {EXTENSION}')
    kernel, space = extension.get('kernel', 'ellipse'), extension.get('colorSpace', SRGB)
    if primitive.get('mode', 4) != gltf.POINTS or kernel != 'ellipse' or space not in (SRGB, LINEAR):
        raise ValueError(f'{path}: a primitive of Gaussians has mode {primitive.get("mode", 4)}, kernel '
                         f'{kernel[:40]!a}, colour space {space[:40]!a}; expected points (0), "ellipse", "{SRGB}" or '
                         f'"{LINEAR}"; export it again')
    compressed = extension.get('extensions', {}).get(SPZ_EXTENSION)
    if compressed is not None:
        check_types(compressed, {'bufferView': int}, f'{path}: {SPZ_EXTENSION}')
        cloud = spz.parse(path, bytes(file.view(compressed['bufferView'])))
    else:
        cloud = _from_accessors(file, primitive['attributes'])
    if space == LINEAR:
        warnings.warn(f'{path}: linear colours were converted to sRGB, in which Gaussians are blended here; where '
                      'transparent ones overlap, pictures differ from those of its training', stacklevel=6)
        cloud = cloud.replace(sh=from_linear(cloud.sh))
    return cloud


def _from_accessors(file: gltf.Gltf, attributes: dict[str, Any]) -> GaussianCloud:
    """Read activated values of one accessor each."""
    path = file.path
    names = {'means': ('POSITION', 3), 'quats': (f'{EXTENSION}:ROTATION', 4), 'scales': (f'{EXTENSION}:SCALE', 3),
             'opacities': (f'{EXTENSION}:OPACITY', 1)}
    for k, (degree, n) in enumerate(_harmonics(path, attributes)):
        names[f'sh_{k}'] = f'{EXTENSION}:SH_DEGREE_{degree}_COEF_{n}', 3
    missing = [name for name, _ in names.values() if name not in attributes]
    if missing:
        raise ValueError(f'{path}: a primitive lacks the attribute {", ".join(missing)} of Gaussians; export it again')
    values = {key: file.numbers(attributes[name]) for key, (name, _) in names.items()}
    count = len(values['means'])
    for key, (name, width) in names.items():
        if values[key].shape != (count, width):
            raise ValueError(f'{path}: {name} holds {values[key].shape[0]} elements of {values[key].shape[1]} values, '
                             f'expected {count} of {width}; export it again')
    if (values['scales'] < 0).any():
        raise ValueError(f'{path}: {EXTENSION}:SCALE has negative values, expected standard deviations; it was written '
                         'by a draft of the extension with logarithms, export it again')
    opacities = values['opacities'][:, 0]
    if ((opacities < 0) | (opacities > 1)).any():
        raise ValueError(f'{path}: {EXTENSION}:OPACITY has values outside [0, 1]; export it again')
    bands = np.stack([values[key] for key in values if key.startswith('sh_')], axis=1)
    return cloud_from_arrays(
        means=values['means'] * _FLIP_MEANS, quats=values['quats'][:, _WXYZ] * _FLIP_QUATS,
        log_scales=quantise.log_scales(values['scales']), opacity_logits=quantise.logits(opacities),
        sh=bands * _FLIP_SH[:bands.shape[1], None])


def _harmonics(path: Path, attributes: dict[str, Any]) -> list[tuple[int, int]]:
    """Return degree and number of every coefficient up to the highest degree present, without gaps."""
    found = {(int(match[1]), int(match[2])) for match in map(_COEFFICIENT.fullmatch, attributes) if match}
    degree = max((degree for degree, _ in found), default=0)
    if degree > 3:
        raise ValueError(f'{path}: spherical harmonics of degree {min(degree, 10 ** 6)}, expected 0 to 3; export it '
                         'again')
    return [(d, n) for d in range(degree + 1) for n in range(2 * d + 1)]


def write(cloud: GaussianCloud, path: Path, encoding: str = 'float', color_space: str = SRGB) -> None:
    """Write one primitive of points in the order of the cloud, with colours for programs that draw points only.

    Args:
        cloud: Gaussians of any SH degree.
        path: File to write, ``.glb``, or ``.gltf`` with its buffer in base64.
        encoding: ``'float'``; ``'integer'`` for quaternions and opacities in 16 bits; ``'spz'`` for the lossy block of
            the draft extension, which other readers must know.
        color_space: Colour space of the harmonics, ``'srgb_rec709_display'`` or ``'lin_rec709_display'``.

    Raises:
        ValueError: Unknown encoding or colour space.
    """
    if encoding not in ENCODINGS or color_space not in (SRGB, LINEAR):
        raise ValueError(f'encoding={encoding!r}, color_space={color_space!r}: expected one of {ENCODINGS} and '
                         f'{(SRGB, LINEAR)}')
    if color_space == LINEAR:
        cloud = cloud.replace(sh=to_linear(cloud.sh))
    columns = _columns(cloud, encoding, color_space)
    block = b''.join(spz.pack(cloud, version=2)) if encoding == 'spz' else None
    accessors, views, parts, size = [], [], [], 0
    for values in columns.values():
        accessors.append(_describe(values))
        if block is None:
            accessors[-1]['bufferView'] = len(views)
            stride = -(-values[0].nbytes // 4) * 4  # the specification aligns elements to four bytes
            rows = np.zeros((len(values), stride), np.uint8)
            rows[:, :values[0].nbytes] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
            parts.append(rows.tobytes())
            views.append({'buffer': 0, 'byteOffset': size, 'byteLength': len(parts[-1]), 'byteStride': stride})
            size += len(parts[-1])
    extension = {'kernel': 'ellipse', 'colorSpace': color_space}
    used = [EXTENSION]
    if block is not None:
        extension['extensions'] = {SPZ_EXTENSION: {'bufferView': 0}}
        used.append(SPZ_EXTENSION)
        parts, views = [block], [{'buffer': 0, 'byteOffset': 0, 'byteLength': len(block)}]
    primitive = {'attributes': {name: i for i, name in enumerate(columns)}, 'mode': gltf.POINTS,
                 'extensions': {EXTENSION: extension}}
    document = {'asset': {'version': '2.0', 'generator': 'clipgs_plugin'}, 'scene': 0, 'scenes': [{'nodes': [0]}],
                'nodes': [{'mesh': 0}], 'meshes': [{'primitives': [primitive]}], 'accessors': accessors,
                'bufferViews': views, 'extensionsUsed': used, **({} if block is None else {'extensionsRequired': used})}
    write_whole(path, gltf.write_parts(document, b''.join(parts), path.suffix.lower() != '.gltf'))


def _columns(cloud: GaussianCloud, encoding: str, color_space: str) -> dict[str, np.ndarray]:
    """Return the attributes of a cloud in the axes of glTF by name, (N, width)."""
    raw = arrays_from_cloud(cloud)
    quats = raw['quats'].astype(np.float64)
    quats = (quats / np.linalg.norm(quats, axis=1, keepdims=True))[:, _XYZW] * _FLIP_QUATS[_XYZW]
    opacities = 1 / (1 + np.exp(-raw['opacity_logits'][:, None].astype(np.float64).clip(-700, 700)))
    sh = raw['sh'] * _FLIP_SH[:raw['sh'].shape[1], None]
    base = torch.from_numpy(quantise.rgb_from_dc(raw['sh'][:, 0]).clip(0, 1))
    if color_space == SRGB:
        base = linear_curve(base)  # colours of vertices are linear in glTF
    integer = encoding == 'integer'
    columns = {
        'POSITION': raw['means'] * _FLIP_MEANS,
        'COLOR_0': _integers(np.concatenate([base.numpy(), opacities], axis=1), np.uint8),
        f'{EXTENSION}:ROTATION': _integers(quats, np.int16) if integer else quats.astype('<f4'),
        f'{EXTENSION}:SCALE': np.exp(raw['log_scales'].astype(np.float64)).astype('<f4'),
        f'{EXTENSION}:OPACITY': _integers(opacities, np.uint16) if integer else opacities.astype('<f4'),
    }
    coefficients = [(d, n) for d in range(cloud.sh_degree + 1) for n in range(2 * d + 1)]
    columns |= {f'{EXTENSION}:SH_DEGREE_{d}_COEF_{n}': sh[:, k] for k, (d, n) in enumerate(coefficients)}
    return columns


def _integers(values: np.ndarray, dtype: type) -> np.ndarray:
    """Return normalised integers of values in [-1, 1] or [0, 1]."""
    return np.rint(values * np.iinfo(dtype).max).astype(np.dtype(dtype).newbyteorder('<'))


def _describe(values: np.ndarray) -> dict[str, Any]:
    """Return the accessor of an attribute, (N, width)."""
    code = {code: number for number, code in gltf.COMPONENTS.items()}[values.dtype.str.replace('|', '<')]
    kind = {width: name for name, width in gltf.TYPES.items()}[values.shape[1]]
    described = {'componentType': code, 'count': len(values), 'type': kind}
    if code != gltf.FLOAT:
        return {**described, 'normalized': True}
    return {**described, 'min': values.min(0).tolist(), 'max': values.max(0).tolist()}
