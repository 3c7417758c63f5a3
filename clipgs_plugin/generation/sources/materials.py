"""Colours of meshes: vertices, faces, textures, and materials of glTF, which trimesh reads in part."""
from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.sources.mesh_formats import stl_colors
from clipgs_plugin.io.arrays import one_line
from clipgs_plugin.structures import MISSING_COLOR

# Extensions that a file may require; all others change the geometry or the images.
_EXTENSIONS = ('KHR_materials_', 'KHR_lights_punctual', 'KHR_texture_transform', 'EXT_texture_webp')
_MAX_TEXTURE = 2048  # pixels per side


class Look(NamedTuple):
    """Colours of a mesh, as in :class:`MeshPart` but with texture coordinates per vertex."""

    base_color: ndarray
    colors: ndarray | None = None
    uv: ndarray | None = None                # (V, 2)
    texture: ndarray | None = None


def mesh_look(path: Path, mesh, textures: dict[tuple, ndarray], stl_header: bytes) -> Look:
    """Return the colours of a mesh of any format except glTF."""
    visual = mesh.visual
    colors = None
    if visual.kind == 'texture':
        return _textured_look(path, visual, textures)
    if visual.kind == 'vertex':
        return Look(_opaque(1.0), colors=np.asarray(visual.vertex_colors, np.float32)[mesh.faces] / 255)
    if visual.kind == 'face':
        colors = np.asarray(visual.face_colors, np.float32) / 255
    elif 'stl' in mesh.face_attributes:
        colors = stl_colors(stl_header, mesh.face_attributes['stl'])
    if colors is None:
        return Look(_opaque(MISSING_COLOR))
    return Look(_opaque(1.0), colors=np.repeat(colors[:, None], 3, axis=1))


def _textured_look(path: Path, visual, textures: dict[tuple, ndarray]) -> Look:
    material = visual.material
    image = getattr(material, 'image', None) or getattr(material, 'baseColorTexture', None)
    diffuse = getattr(material, 'kwargs', {}).get('kd')
    texture = None
    if getattr(image, 'format', None) and visual.uv is not None:  # an image without a format is trimesh's placeholder
        if (id(image),) not in textures:
            texture = _decode_texture(path, image)
            texture[..., 3] = 255  # programs disagree on the meaning of alpha in map_Kd
            textures[id(image),] = texture
        texture = textures[id(image),]
    if diffuse is None or np.shape(diffuse) != (3,):
        base = 1.0 if texture is not None else MISSING_COLOR
    else:
        # Exporters write a black Kd beside a texture that holds all of the colour.
        base = 1.0 if texture is not None and not np.any(diffuse) else np.asarray(diffuse)
    return Look(_opaque(base), uv=visual.uv, texture=texture)


def _opaque(color) -> ndarray:
    """Return a grey or three numbers as sRGB with alpha 1, (4,) float32."""
    return np.append(np.clip(np.broadcast_to(color, 3), 0, 1), 1.0).astype(np.float32)


def _decode_texture(path: Path, image) -> ndarray:
    """Decode a PIL image to (h, w, 4) uint8 of at most 2048 pixels per side."""
    try:
        image = image.convert('RGBA')
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f'{path}: a texture cannot be decoded ({error}); repair the image') from error
    excess = max(image.size) / _MAX_TEXTURE
    return np.array(image.reduce(int(np.ceil(excess))) if excess > 1 else image)


# glTF

def prepare_gltf(path: Path, data: bytes) -> tuple[bytes, list[dict]]:
    """Rewrite a file so that trimesh keeps its base colours, and return the materials.

    Every primitive gets a material that is named by its index in the returned list and has the base colour texture
    alone, and the texture coordinates of that texture as its first set, the only one that trimesh reads.

    Raises:
        ValueError: The file is damaged, or requires an extension that is not supported.
    """
    binary = path.suffix.lower() == '.glb'
    text, rest = data, b''
    if binary:
        if len(data) < 20 or data[:4] != b'glTF':
            raise ValueError(f'{path} does not begin like a .glb file; it is truncated, or not what its ending says')
        length, size = int.from_bytes(data[8:12], 'little'), int.from_bytes(data[12:16], 'little')
        if length > len(data):
            raise ValueError(f'{path}: header promises {length} bytes, the file holds {len(data)}; it is truncated, '
                             'download it again')
        text, rest = data[20:20 + size], data[20 + size:length]
    try:
        header = _parse_header(path, text)
        _check_extensions(path, header)
        materials = [_base_color(material) for material in header.get('materials', [])]
        materials.append({**_base_color({}), 'is_default': True})
        header['materials'] = [
            dict(name=str(index), pbrMetallicRoughness={} if material['texture'] is None else dict(
                baseColorTexture=dict(index=material['texture']['index'])))
            for index, material in enumerate(materials)]
        for mesh in header.get('meshes', []):
            for primitive in mesh['primitives']:
                primitive.setdefault('material', len(materials) - 1)
                _choose_coordinates(path, header, primitive, materials[primitive['material']])
        text = json.dumps(header).encode()
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} cannot be read as glTF ({type(error).__name__}: {one_line(error)}); it is '
                         'broken') from error
    if not binary:
        return text, materials
    text += b' ' * (-len(text) % 4)
    chunks = len(text).to_bytes(4, 'little') + b'JSON' + text + rest
    return b'glTF' + (2).to_bytes(4, 'little') + (12 + len(chunks)).to_bytes(4, 'little') + chunks, materials


def _parse_header(path: Path, text: bytes) -> dict:
    """Parse the JSON of a file; some exporters write NaN into parts that nothing reads."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path} cannot be read as glTF ({one_line(error)}); it is broken') from error


def gltf_look(path: Path, mesh, materials: list[dict], textures: dict[tuple, ndarray],
              report_missing: Callable[[str, str], None]) -> Look:
    """Return the colours of a mesh whose material :func:`prepare_gltf` numbered.

    Args:
        path: Path of the file, for messages.
        mesh: Mesh of trimesh.
        materials: Materials of the file.
        textures: Cache of decoded textures.
        report_missing: Called with problem and remedy if a texture cannot be used.
    """
    material = materials[int(mesh.visual.material.name)]
    mode, cutoff = material.get('alphaMode', 'OPAQUE'), material.get('alphaCutoff', 0.5)
    factor = np.asarray(material['factor'], np.float64)
    colors = _vertex_colors(mesh, mode)
    texture, uv = None, mesh.visual.uv
    if material['texture'] is not None:
        image = mesh.visual.material.baseColorTexture
        if image is None or uv is None:
            problem = 'texture is missing or of an unknown format' if image is None else 'faces have no coordinates'
            report_missing(f"{path}: material {material['title']!r}: the {problem}", 'repair it')
        else:
            key = id(image), *factor, mode, cutoff
            if key not in textures:
                textures[key] = _apply_factor(_decode_texture(path, image), factor, mode, cutoff)
            texture = textures[key]
            uv = _transform_uv(uv, material['texture'].get('extensions', {}).get('KHR_texture_transform', {}))
    if texture is not None:
        base = _opaque(1.0)
    elif material['is_default'] and colors is None:
        base = _opaque(MISSING_COLOR)
    else:
        alpha = {'OPAQUE': 1.0, 'MASK': float(factor[3] >= cutoff)}.get(mode, factor[3])
        base = np.append(_to_srgb(factor[:3]), alpha).astype(np.float32)
    return Look(base, colors=colors, uv=uv, texture=texture)


def _check_extensions(path: Path, header: dict) -> None:
    allowed = _EXTENSIONS + (('KHR_draco_mesh_compression',) if importlib.util.find_spec('DracoPy') else ())
    for name in header.get('extensionsRequired', []):
        if not name.startswith(allowed):
            remedy = 'pip install DracoPy' if 'draco' in name else 'export it without'
            raise ValueError(f'{path} requires the glTF extension {name}, which is not supported; {remedy}')


def _base_color(material: dict) -> dict:
    """Read the base colour of a material: title, factor (4,) linear, texture, alphaMode, alphaCutoff."""
    base = material.get('pbrMetallicRoughness', {})
    factor, texture = base.get('baseColorFactor'), base.get('baseColorTexture')
    gloss = material.get('extensions', {}).get('KHR_materials_pbrSpecularGlossiness')
    if gloss is not None:
        factor, texture = gloss.get('diffuseFactor'), gloss.get('diffuseTexture')
    return dict(title=material.get('name', ''), factor=factor or [1.0] * 4, texture=texture, is_default=False,
                **{key: material[key] for key in ('alphaMode', 'alphaCutoff') if key in material})


def _choose_coordinates(path: Path, header: dict, primitive: dict, material: dict) -> None:
    """Make the texture coordinates of the base colour the first set of a primitive."""
    if material['texture'] is None:
        return
    attributes = primitive['attributes']
    transform = material['texture'].get('extensions', {}).get('KHR_texture_transform', {})
    number = transform.get('texCoord', material['texture'].get('texCoord', 0))
    accessor = attributes.get(f'TEXCOORD_{number}')
    attributes.pop('TEXCOORD_0', None)
    if accessor is None:
        return
    if header['accessors'][accessor]['componentType'] != 5126:
        raise ValueError(f'{path} has texture coordinates in integers, which are not supported; export them as floats')
    attributes['TEXCOORD_0'] = accessor


def _vertex_colors(mesh, mode: str) -> ndarray | None:
    """Return the colours of the corners, (F, 3, 4) float32 sRGB and alpha, if the mesh has any."""
    colors = mesh.visual.vertex_attributes.get('color')
    if colors is None:
        return None
    colors = np.asarray(colors)
    full = np.iinfo(colors.dtype).max if colors.dtype.kind == 'u' else 1.0
    colors = colors.astype(np.float32)[mesh.faces] / full
    alpha = np.ones_like(colors[..., :1]) if colors.shape[-1] == 3 or mode == 'OPAQUE' else colors[..., 3:]
    return np.concatenate([_to_srgb(colors[..., :3]), alpha], -1)


def _transform_uv(uv: ndarray, transform: dict) -> ndarray:
    """Apply the extension KHR_texture_transform, whose v points down, to coordinates whose v points up."""
    if not transform:
        return uv
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * transform.get('scale', (1.0, 1.0))
    angle = transform.get('rotation', 0.0)
    uv = uv @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    uv = uv + transform.get('offset', (0.0, 0.0))
    return np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1)


def _to_srgb(linear: ndarray) -> ndarray:
    """Convert linear light in [0, 1] to sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _apply_factor(texture: ndarray, factor: ndarray, mode: str, cutoff: float) -> ndarray:
    """Multiply a texture by its factor (4,) in linear light, and set the alpha of the mode."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    tables = [np.rint(255 * _to_srgb(linear * scale)).astype(np.uint8) for scale in factor[:3]]
    alpha = value * np.clip(factor[3], 0, 1)
    alpha = {'OPAQUE': np.ones(256), 'MASK': (alpha >= cutoff) * 1.0}.get(mode, alpha)
    tables.append(np.rint(255 * alpha).astype(np.uint8))
    return np.stack([table[texture[..., channel]] for channel, table in enumerate(tables)], axis=-1)
