"""Meshes with their textures, materials and colours, read through trimesh."""
from __future__ import annotations

import importlib.util
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart
from clipgs_plugin.generation.sources.base import checked_axis
from clipgs_plugin.generation.sources.listing import find_files, list_files
from clipgs_plugin.generation.sources.mesh_formats import check_stl, read_off, stl_colors
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import MISSING_COLOR

# Names that say nothing of the object; the folder's does then.
_GENERIC_FILE = re.compile(r'(model|mesh|scene|object|textured|untitled)([ _-]*(\d+|normalized|simplified|simple))*',
                           re.IGNORECASE)
_GENERIC_FOLDER = re.compile(r'models?|mesh(es)?|objects?|obj|glb|gltf|source', re.IGNORECASE)
# Where exporters put textures, seen from the mesh; ``..`` is as far as a file may point.
_TEXTURE_FOLDERS = ('', 'textures', 'images', '..', '../textures', '../images', '../materials/textures')
# Extensions of glTF that a file may require; what else it requires changes the geometry or the pictures.
_GLTF_EXTENSIONS = ('KHR_materials_', 'KHR_lights_punctual', 'KHR_texture_transform', 'EXT_texture_webp')


@TASK_UTILS.register_module()
class MeshSource:
    """Meshes of a folder, one object a file: ``.glb``, ``.gltf``, ``.obj``, ``.ply``, ``.off``, ``.stl``.

    The nodes of a scene are put in place and joined. Colours come from the texture of the base colour, the material's
    factor, and colours of vertices or faces; the linear ones of glTF become sRGB. Shininess, emission, normal maps and
    a texture's way of clamping are left out. Normals are those of the file, or of the triangles where it has none.

    The name of an object is that of its file below the root. A file alone in its folder with a name that says nothing
    (``model_0.obj``, ``mesh.ply``) takes the folder's.

    Args:
        up: The axis that points up in the files.
        gray: sRGB of what has no colour at all; 0.4 is what point-cloud models take for a missing colour.
        missing_textures: Where a texture or material file is not there or is no picture, ``'warn'`` goes on with the
            material's own colour, or grey, and says so in a warning; ``'refuse'`` fails.
        max_texture: Pixels along a side to which larger textures are reduced.

    Raises:
        ValueError: Unknown axis or choice, or a number out of its range.
    """

    suffixes = ('.glb', '.gltf', '.obj', '.ply', '.off', '.stl')

    def __init__(self, up: str = 'y', gray: float = MISSING_COLOR, missing_textures: str = 'warn',
                 max_texture: int = 2048) -> None:
        if missing_textures not in ('warn', 'refuse'):
            raise ValueError(f"missing_textures={missing_textures!r}: expected 'warn' or 'refuse'")
        if not 0 <= gray <= 1 or max_texture < 1:
            raise ValueError(f'gray={gray}, max_texture={max_texture}: expected a number in [0, 1] and at least 1')
        self.up, self.gray = checked_axis(up), gray
        self.missing_textures, self.max_texture = missing_textures, max_texture

    def list(self, root: Path) -> Sequence[Listed]:
        """The meshes below a folder, by name; or the file itself.

        Raises:
            FileNotFoundError: No such file or folder.
            ValueError: A file of another kind.
        """
        root = Path(root)
        paths = find_files(root, self.suffixes)
        if root.is_file():
            if root.suffix.lower() not in self.suffixes:
                raise ValueError(f'{root}: expected one of {", ".join(self.suffixes)}')
            return list_files(root, paths)
        siblings = Counter(path.parent for path in paths)
        places = [_named(path, root, siblings[path.parent] == 1) for path in paths]
        return [replace(listed, path=path) for listed, path in zip(list_files(root, places), paths)]

    def load(self, listed: Listed) -> Mesh:
        """The mesh of a file, in its frame; parts with the same texture are joined.

        Raises:
            ValueError: The file is empty, broken or holds no triangles; the message says which.
            OSError: It cannot be read.
            ImportError: trimesh is not installed.
        """
        try:
            import trimesh
        except ImportError as error:
            raise ImportError('reading meshes needs trimesh; pip install "clipgs_plugin[triplets]"') from error
        path = Path(listed.path)
        data = path.read_bytes()
        if not data:
            raise ValueError(f'{path} is empty; delete it, or make it again')
        kind = path.suffix.lower()[1:]
        resolver = _Resolver(path)
        materials = []
        if kind in ('glb', 'gltf'):
            data, materials = _prepare_gltf(path, data)
        if kind == 'stl':
            check_stl(path, data)
        try:
            scene = (_off_scene(trimesh, path, data, self.gray) if kind == 'off' else
                     trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=False))
            nodes = [scene.graph[name] for name in scene.graph.nodes_geometry]
        except Exception as error:  # trimesh lets out whatever a broken file runs into
            raise ValueError(f'{path} cannot be read as .{kind} ({type(error).__name__}: {error}); it is probably '
                             'truncated or not what its ending says') from error
        missing = {} if materials else resolver.missing  # glTF may name pictures that are not of colour
        for name, reason in missing.items():
            self._missing(f'{path} wants {name}, which {reason}', 'put it beside the mesh')
        textures: dict[tuple, ndarray] = {}
        parts, points = [], 0
        for matrix, geometry in nodes:
            mesh = scene.geometry[geometry]
            if not len(getattr(mesh, 'faces', ())):
                points += len(getattr(mesh, 'vertices', ()))
                continue
            if materials:
                look = self._gltf_look(path, mesh, materials, textures)
            else:
                look = self._look(path, mesh, textures, data[:80] if kind == 'stl' else b'')
            parts.append(_part(path, mesh, np.asarray(matrix, np.float64), look))
        if not parts:
            what = f'{points} points and no faces: it is a point cloud or a splat' if points else 'no faces'
            raise ValueError(f'{path} holds {what}; read point clouds with PointSource and splats with SplatSource')
        parts = [part for part in map(_without_degenerate, parts) if len(part.triangles)]
        if not parts:
            raise ValueError(f'{path} holds faces without area only')
        return Mesh(_joined(parts))

    def _missing(self, what: str, remedy: str) -> None:
        """Says that an object comes without a texture, or refuses it."""
        if self.missing_textures == 'refuse':
            raise ValueError(f"{what}; {remedy}, or take missing_textures='warn'")
        warnings.warn(f'{what}; it is left out', stacklevel=3)

    def _look(self, path: Path, mesh, textures: dict[tuple, ndarray], stl_header: bytes) -> _Look:
        """Colours of a mesh that is not glTF's."""
        visual = mesh.visual
        if visual.kind == 'texture':
            material = visual.material
            image = getattr(material, 'image', None) or getattr(material, 'baseColorTexture', None)
            stated = getattr(material, 'kwargs', {}).get('kd')
            texture = None
            if getattr(image, 'format', None) and visual.uv is not None:  # trimesh's own stand-in comes from no file
                if (id(image),) not in textures:
                    textures[id(image),] = self._pixels(path, image)
                    textures[id(image),][..., 3] = 255  # what alpha means in map_Kd differs from tool to tool
                texture = textures[id(image),]
            if stated is None or np.shape(stated) != (3,):
                return _Look(_color(1.0 if texture is not None else self.gray), uv=visual.uv, texture=texture)
            # Exporters write a black Kd beside a texture that is all of the colour.
            base = np.ones(3) if texture is not None and not np.any(stated) else np.asarray(stated)
            return _Look(_color(base), uv=visual.uv, texture=texture)
        if visual.kind == 'vertex':
            return _Look(_color(1.0), colors=np.asarray(visual.vertex_colors, np.float32)[mesh.faces] / 255)
        if visual.kind == 'face':
            colors = np.asarray(visual.face_colors, np.float32) / 255
            return _Look(_color(1.0), colors=np.repeat(colors[:, None], 3, axis=1))
        if 'stl' in mesh.face_attributes:
            colors = stl_colors(stl_header, mesh.face_attributes['stl'], self.gray)
            if colors is not None:
                return _Look(_color(1.0), colors=np.repeat(colors[:, None], 3, axis=1))
        return _Look(_color(self.gray))

    def _gltf_look(self, path: Path, mesh, materials: list[dict], textures: dict[tuple, ndarray]) -> _Look:
        """Colours of a mesh of glTF, whose materials were numbered by :func:`_prepare_gltf`."""
        stated = materials[int(mesh.visual.material.name)]
        mode, cutoff = stated.get('alphaMode', 'OPAQUE'), stated.get('alphaCutoff', 0.5)
        factor = np.asarray(stated['factor'], np.float64)
        colors = mesh.visual.vertex_attributes.get('color')
        if colors is not None:
            colors = np.asarray(colors)
            full = np.iinfo(colors.dtype).max if colors.dtype.kind == 'u' else 1.0
            colors = colors.astype(np.float32)[mesh.faces] / full
            colors = np.concatenate([_to_srgb(colors[..., :3]), colors[..., 3:]], -1)
            if colors.shape[-1] == 3 or mode == 'OPAQUE':
                colors = np.concatenate([colors[..., :3], np.ones_like(colors[..., :1])], -1)
        texture, uv = None, mesh.visual.uv
        if stated['texture'] is not None:
            image = mesh.visual.material.baseColorTexture
            if image is None or uv is None:
                lacks = 'texture is missing or of no known format' if image is None else 'faces have no coordinates'
                self._missing(f"{path}: of material {stated['title']!r} the {lacks}", 'mend it')
            else:
                key = id(image), *factor, mode, cutoff
                if key not in textures:
                    textures[key] = _tinted(self._pixels(path, image), factor, mode, cutoff)
                texture = textures[key]
                uv = _placed(uv, stated['texture'].get('extensions', {}).get('KHR_texture_transform', {}))
        if texture is not None:
            base = _color(1.0)
        elif stated['nothing'] and colors is None:
            base = _color(self.gray)
        else:
            alpha = {'OPAQUE': 1.0, 'MASK': float(factor[3] >= cutoff)}.get(mode, factor[3])
            base = np.append(_to_srgb(factor[:3]), alpha).astype(np.float32)
        return _Look(base, colors=colors, uv=uv, texture=texture)

    def _pixels(self, path: Path, image) -> ndarray:
        """A PIL image as (h, w, 4) uint8, reduced to ``max_texture``."""
        try:
            image = image.convert('RGBA')
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f'{path}: a texture cannot be decoded ({error}); mend the picture') from error
        excess = max(image.size) / self.max_texture
        if excess > 1:
            image = image.reduce(int(np.ceil(excess)))
        return np.array(image)


def _off_scene(trimesh, path: Path, data: bytes, gray: float):
    """A scene of trimesh of an .off file."""
    off = read_off(path, data, gray)
    return trimesh.Scene(trimesh.Trimesh(off.vertices, off.faces, vertex_colors=off.vertex_colors,
                                         face_colors=off.face_colors, process=False, validate=False))


class _Look(NamedTuple):
    """What colours a mesh: as in :class:`MeshPart`, uv still of the vertices."""

    base_color: ndarray
    colors: ndarray | None = None
    uv: ndarray | None = None                # (V, 2)
    texture: ndarray | None = None


def _color(value) -> ndarray:
    """A grey or three numbers as sRGB and alpha, (4,) float32."""
    return np.append(np.clip(np.broadcast_to(value, 3), 0, 1), 1.0).astype(np.float32)


def _named(path: Path, root: Path, alone: bool) -> Path:
    """The path that a mesh below the root is named by: its own, or a folder's, with no dots but that of the ending."""
    if not (alone and _GENERIC_FILE.fullmatch(path.stem)):
        return path.with_name(path.stem.replace('.', '_') + path.suffix)
    folder = path.parent
    while folder != root and folder.parent != root and _GENERIC_FOLDER.fullmatch(folder.name):
        folder = folder.parent
    if folder == root:
        return root / root.resolve().name.replace('.', '_')
    return folder.with_name(folder.name.replace('.', '_'))


# Files beside the mesh

class _Resolver:
    """Finds the files that a mesh names, in the places where exporters put them.

    Attributes:
        missing: Name and reason of each file that was asked for in vain, or is a picture that cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.folder, self.file_name = path.resolve().parent, path.name
        self.missing: dict[str, str] = {}

    def get(self, name: str) -> bytes:
        path = self._find(name)
        if path is None:
            self.missing[name] = 'was not found'
            raise FileNotFoundError(f'{name} not found near {self.folder}')
        data = path.read_bytes()
        if path.suffix.lower() not in ('.mtl', '.bin'):
            from PIL import Image
            try:
                Image.open(io.BytesIO(data)).close()
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                self.missing[name] = 'cannot be opened as a picture'
        return data

    __getitem__ = get

    def _find(self, name: str) -> Path | None:
        """The file as written, or one of its name in a folder nearby; nothing above the mesh's folder's parent."""
        from urllib.parse import unquote
        for written in dict.fromkeys([name, unquote(name), name.split(' ')[-1]]):  # options may precede a texture
            relative = PureWindowsPath(written)  # takes both slashes
            tries = [] if relative.is_absolute() else [self.folder.joinpath(*relative.parts)]
            tries += [self.folder / place / relative.name for place in _TEXTURE_FOLDERS]
            for path in tries:
                if path.is_file() and path.resolve().is_relative_to(self.folder.parent):
                    return path
        return None


# glTF

def _prepare_gltf(path: Path, data: bytes) -> tuple[bytes, list[dict]]:
    """The file with its materials numbered and made plain, and what they state.

    trimesh keeps materials by name only, and drops what is not a plain factor or picture. So every primitive gets
    a material whose name is its number and whose picture is that of the base colour, and the texture coordinates
    which that uses; the rest is read here.
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
        header = json.loads(text)
        required = header.get('extensionsRequired', [])
        allowed = _GLTF_EXTENSIONS + (('KHR_draco_mesh_compression',) if importlib.util.find_spec('DracoPy') else ())
        for name in required:
            if not name.startswith(allowed):
                remedy = 'pip install DracoPy' if 'draco' in name else 'export it without'
                raise ValueError(f'{path} requires the glTF extension {name}, which is not read; {remedy}')
        stated = [_stated(material) for material in header.get('materials', [])]
        stated.append({**_stated({}), 'nothing': True})
        header['materials'] = [_plain_material(index, material) for index, material in enumerate(stated)]
        for mesh in header.get('meshes', []):
            for primitive in mesh['primitives']:
                primitive.setdefault('material', len(stated) - 1)
                _choose_coordinates(path, header, primitive, stated[primitive['material']])
        text = json.dumps(header).encode()
    except (KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f'{path} cannot be read as glTF ({type(error).__name__}: {error}); it is broken') from error
    if not binary:
        return text, stated
    text += b' ' * (-len(text) % 4)
    chunks = len(text).to_bytes(4, 'little') + b'JSON' + text + rest
    return b'glTF' + (2).to_bytes(4, 'little') + (12 + len(chunks)).to_bytes(4, 'little') + chunks, stated


def _stated(material: dict) -> dict:
    """What a material of glTF says of its colour: title, factor (4,) linear, texture, alphaMode, alphaCutoff."""
    base = material.get('pbrMetallicRoughness', {})
    factor, texture = base.get('baseColorFactor'), base.get('baseColorTexture')
    gloss = material.get('extensions', {}).get('KHR_materials_pbrSpecularGlossiness')
    if gloss is not None:
        factor, texture = gloss.get('diffuseFactor'), gloss.get('diffuseTexture')
    return dict(title=material.get('name', ''), factor=factor or [1.0] * 4, texture=texture, nothing=False,
                **{key: material[key] for key in ('alphaMode', 'alphaCutoff') if key in material})


def _plain_material(index: int, stated: dict) -> dict:
    base = {} if stated['texture'] is None else dict(baseColorTexture=dict(index=stated['texture']['index']))
    return dict(name=str(index), pbrMetallicRoughness=base)


def _choose_coordinates(path: Path, header: dict, primitive: dict, stated: dict) -> None:
    """Makes the texture coordinates of the base colour the first set, the only one that trimesh reads."""
    if stated['texture'] is None:
        return
    attributes = primitive['attributes']
    transform = stated['texture'].get('extensions', {}).get('KHR_texture_transform', {})
    number = transform.get('texCoord', stated['texture'].get('texCoord', 0))
    accessor = attributes.get(f'TEXCOORD_{number}')
    attributes.pop('TEXCOORD_0', None)
    if accessor is None:
        return
    if header['accessors'][accessor]['componentType'] != 5126:
        raise ValueError(f'{path} has texture coordinates in integers, which are not read; export them as floats')
    attributes['TEXCOORD_0'] = accessor


def _placed(uv: ndarray, transform: dict) -> ndarray:
    """Texture coordinates, v up, under the extension KHR_texture_transform, which counts v down."""
    if not transform:
        return uv
    places = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * transform.get('scale', (1.0, 1.0))
    angle = transform.get('rotation', 0.0)
    places = places @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = places + transform.get('offset', (0.0, 0.0))
    return np.stack([places[:, 0], 1 - places[:, 1]], axis=1)


def _to_srgb(linear: ndarray) -> ndarray:
    """Linear light in [0, 1] as sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def _tinted(texture: ndarray, factor: ndarray, mode: str, cutoff: float) -> ndarray:
    """A texture of glTF times its factor (4,), multiplied in linear light, with the alpha that the mode asks for."""
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    tables = [np.rint(255 * _to_srgb(linear * scale)).astype(np.uint8) for scale in factor[:3]]
    alpha = value * np.clip(factor[3], 0, 1)
    alpha = {'OPAQUE': np.ones(256), 'MASK': (alpha >= cutoff) * 1.0}.get(mode, alpha)
    tables.append(np.rint(255 * alpha).astype(np.uint8))
    return np.stack([table[texture[..., channel]] for channel, table in enumerate(tables)], axis=-1)


# Triangles

def _part(path: Path, mesh, matrix: ndarray, look: _Look) -> MeshPart:
    """A mesh of trimesh where its node puts it, corner by corner."""
    faces = np.asarray(mesh.faces, np.int64)
    vertices = np.asarray(mesh.vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f'{path} has vertices of shape {vertices.shape}, expected three numbers each; it is broken')
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f'{path} has a face on vertex {faces.max()} of {len(vertices)}; it is broken')
    with np.errstate(over='ignore', invalid='ignore'):  # what overflows is refused next
        triangles = (vertices @ matrix[:3, :3].T + matrix[:3, 3])[faces]
        finite = np.isfinite(triangles.astype(np.float32)).all((1, 2))
    if not finite.all():
        raise ValueError(f'{path} holds NaN or infinite positions, in {(~finite).sum()} of {len(faces)} faces; mend it')
    mirrored = np.linalg.det(matrix[:3, :3]) < 0
    order = [0, 2, 1] if mirrored else [0, 1, 2]  # a node that mirrors turns its triangles inside out
    normals = np.cross(triangles[:, order[1]] - triangles[:, 0], triangles[:, order[2]] - triangles[:, 0])
    normals = np.repeat(_unit(normals)[:, None], 3, axis=1)
    if 'vertex_normals' in mesh._cache:  # from the file; without them trimesh makes some on demand
        given = _unit(np.asarray(mesh.vertex_normals, np.float64)[faces] @ _cofactors(matrix[:3, :3]).T)
        normals = np.where(given.any(-1, keepdims=True), given, normals)
    uv = None if look.texture is None else np.asarray(look.uv, np.float32)[faces][:, order]
    if uv is not None and not np.isfinite(uv).all():
        raise ValueError(f'{path} holds NaN or infinite texture coordinates; mend it')
    colors = None if look.colors is None else look.colors[:, order].astype(np.float32)
    return MeshPart(triangles[:, order].astype(np.float32), normals[:, order].astype(np.float32), look.base_color,
                    colors, uv, look.texture)


def _cofactors(matrix: ndarray) -> ndarray:
    """What turns normals where ``matrix`` (3, 3) moves points, singular ones included; outward stays outward."""
    a, b, c = matrix
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    return -cofactors if np.linalg.det(matrix) < 0 else cofactors


def _unit(vectors: ndarray) -> ndarray:
    """Unit vectors; those that are zero or not finite become zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=(length > 0) & np.isfinite(length))


def _without_degenerate(part: MeshPart) -> MeshPart:
    """The part without the triangles that have no area."""
    corners = part.triangles.astype(np.float64)
    kept = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).any(1)
    if kept.all():
        return part
    return part._replace(**{name: value[kept] for name in ('triangles', 'normals', 'colors', 'uv')
                            if (value := getattr(part, name)) is not None})


def _joined(parts: list[MeshPart]) -> tuple[MeshPart, ...]:
    """Parts with the same texture as one, and those without any as one; a part's look-up costs time in every view."""
    groups: dict[int | None, list[MeshPart]] = {}
    for part in parts:
        groups.setdefault(None if part.texture is None else id(part.texture), []).append(part)
    joined = []
    for group in groups.values():
        first = group[0]
        if len(group) > 1:
            plain = all(part.colors is None and (part.base_color == first.base_color).all() for part in group)
            first = MeshPart(
                triangles=np.concatenate([part.triangles for part in group]),
                normals=np.concatenate([part.normals for part in group]),
                base_color=first.base_color if plain else np.ones(4, np.float32),
                colors=None if plain else np.concatenate([_corner_colors(part) for part in group]),
                uv=None if first.uv is None else np.concatenate([part.uv for part in group]),
                texture=first.texture)
        joined.append(first)
    return tuple(joined)


def _corner_colors(part: MeshPart) -> ndarray:
    """Colours of the corners with the base colour in them, (F, 3, 4)."""
    colors = np.ones((len(part.triangles), 3, 4), np.float32) if part.colors is None else part.colors
    return colors * part.base_color
