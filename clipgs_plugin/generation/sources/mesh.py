"""Source of meshes with their textures, materials and colours, read through trimesh."""
from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from urllib.parse import unquote

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.arrays import unit_vectors
from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart
from clipgs_plugin.generation.sources.base import check_axis
from clipgs_plugin.generation.sources.listing import find_files, list_files
from clipgs_plugin.generation.sources.materials import Look, gltf_look, mesh_look, prepare_gltf
from clipgs_plugin.generation.sources.mesh_formats import check_stl, read_off
from clipgs_plugin.io.arrays import one_line
from clipgs_plugin.registry import TASK_UTILS

# Names without meaning; the folder names the object instead.
_GENERIC_FILE = re.compile(r'(model|mesh|scene|object|textured|untitled)([ _-]*(\d+|normalized|simplified|simple))*',
                           re.IGNORECASE)
_GENERIC_FOLDER = re.compile(r'models?|mesh(es)?|objects?|obj|glb|gltf|source', re.IGNORECASE)
# Where exporters put textures, relative to the mesh; ``..`` is as far as a file may point.
_TEXTURE_FOLDERS = ('', 'textures', 'images', '..', '../textures', '../images', '../materials/textures')


@TASK_UTILS.register_module()
class MeshSource:
    """Meshes of a folder, one object per file: ``.glb``, ``.gltf``, ``.obj``, ``.ply``, ``.off``, ``.stl``.

    The nodes of a scene are transformed and joined. Colours come from the base colour texture, the material's factor,
    and the colours of vertices or faces; linear colours of glTF become sRGB, and a mesh without colour is grey.
    Shininess, emission, normal maps and the wrap mode of a texture are ignored. Normals are the file's, or those of
    the triangles. Textures larger than 2048 pixels are reduced.

    An object is named after its file below the root. A file that is alone in its folder and has a generic name
    (``model_0.obj``, ``mesh.ply``) is named after the folder.

    Args:
        up: Up axis of the files.
        missing_textures: If a texture or material file is missing or unreadable, ``'warn'`` uses the material's own
            colour, or grey, with a warning; ``'refuse'`` raises.

    Raises:
        ValueError: Unknown axis or choice.
    """

    suffixes = ('.glb', '.gltf', '.obj', '.ply', '.off', '.stl')

    def __init__(self, up: str = 'y', missing_textures: str = 'warn') -> None:
        if missing_textures not in ('warn', 'refuse'):
            raise ValueError(f"missing_textures={missing_textures!r}: expected 'warn' or 'refuse'")
        self.up, self.missing_textures = check_axis(up), missing_textures

    def list(self, root: Path) -> Sequence[Listed]:
        """List the meshes below a folder, by name, or the file itself.

        Raises:
            FileNotFoundError: The file or folder does not exist.
            ValueError: The file has another ending.
        """
        root = Path(root)
        paths = find_files(root, self.suffixes)
        if root.is_file():
            if root.suffix.lower() not in self.suffixes:
                raise ValueError(f'{root}: expected one of {", ".join(self.suffixes)}')
            return list_files(root, paths)
        siblings = Counter(path.parent for path in paths)
        named = [_naming_path(path, root, siblings[path.parent] == 1) for path in paths]
        return [replace(listed, path=path) for listed, path in zip(list_files(root, named), paths)]

    def load(self, listed: Listed) -> Mesh:
        """Load the mesh of a file, in its frame; parts with the same texture are joined.

        Raises:
            ValueError: The file is empty, damaged or has no triangles; the message says which.
            OSError: The file cannot be read.
            ImportError: trimesh is not installed.
        """
        path = Path(listed.path)
        data = path.read_bytes()
        if not data:
            raise ValueError(f'{path} is empty; delete it, or export it again')
        kind = path.suffix.lower()[1:]
        resolver, materials = _Resolver(path), None
        if kind in ('glb', 'gltf'):
            data, materials = prepare_gltf(path, data)
        if kind == 'stl':
            check_stl(path, data)
        scene, nodes = _read_scene(path, kind, data, resolver)
        if materials is None:  # glTF may name images other than colour
            for name, reason in resolver.missing.items():
                self._report_missing(f'{path} refers to {name}, which {reason}', 'put it beside the mesh')
        textures: dict[tuple, ndarray] = {}
        parts, points = [], 0
        for matrix, geometry in nodes:
            mesh = scene.geometry[geometry]
            if not len(getattr(mesh, 'faces', ())):
                points += len(getattr(mesh, 'vertices', ()))
                continue
            _check_faces(path, mesh)
            if materials is not None:
                look = gltf_look(path, mesh, materials, textures, self._report_missing)
            else:
                look = mesh_look(path, mesh, textures, data[:80] if kind == 'stl' else b'')
            parts.append(_make_part(path, mesh, np.asarray(matrix, np.float64), look))
        if not parts:
            content = f'{points} points and no faces: it is a point cloud or a splat' if points else 'no faces'
            raise ValueError(f'{path} holds {content}; read point clouds with PointSource and splats with SplatSource')
        parts = [part for part in map(_drop_degenerate, parts) if len(part.triangles)]
        if not parts:
            raise ValueError(f'{path} holds only faces without area')
        return Mesh(_join_parts(parts))

    def _report_missing(self, problem: str, remedy: str) -> None:
        """Warn about a missing texture, or refuse the object."""
        if self.missing_textures == 'refuse':
            raise ValueError(f"{problem}; {remedy}, or set missing_textures='warn'")
        warnings.warn(f'{problem}; it is left out', stacklevel=3)


def _naming_path(path: Path, root: Path, alone: bool) -> Path:
    """Return the path that names a mesh: its own, or that of a folder, without dots but for the ending."""
    if not (alone and _GENERIC_FILE.fullmatch(path.stem)):
        return path.with_name(path.stem.replace('.', '_') + path.suffix)
    folder = path.parent
    while folder != root and folder.parent != root and _GENERIC_FOLDER.fullmatch(folder.name):
        folder = folder.parent
    if folder == root:
        return root / root.resolve().name.replace('.', '_')
    return folder.with_name(folder.name.replace('.', '_'))


class _Resolver:
    """Search for the files that a mesh refers to, in the folders that exporters use.

    Attributes:
        missing: Name and reason of each file that was not found, or is an image that cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.folder, self.file_name = path.resolve().parent, path.name  # trimesh reads file_name
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
                self.missing[name] = 'cannot be opened as an image'
        return data

    __getitem__ = get

    def _find(self, name: str) -> Path | None:
        """Find a file as written, or by its name in a folder nearby, but not above the parent of the mesh's folder."""
        for written in dict.fromkeys([name, unquote(name), name.split(' ')[-1]]):  # options may precede a texture
            relative = PureWindowsPath(written)  # accepts both slashes
            tries = [] if relative.is_absolute() else [self.folder.joinpath(*relative.parts)]
            tries += [self.folder / place / relative.name for place in _TEXTURE_FOLDERS]
            for path in tries:
                if path.is_file() and path.resolve().is_relative_to(self.folder.parent):
                    return path
        return None


def _read_scene(path: Path, kind: str, data: bytes, resolver: _Resolver):
    """Read a scene with trimesh; also return the matrix and the geometry of its nodes."""
    try:
        import trimesh
    except ImportError as error:
        raise ImportError('reading meshes needs trimesh, of the extra triplets; pip install trimesh') from error
    try:
        if kind == 'off':
            off = read_off(path, data)
            scene = trimesh.Scene(trimesh.Trimesh(off.vertices, off.faces, vertex_colors=off.vertex_colors,
                                                  face_colors=off.face_colors, process=False, validate=False))
        else:
            scene = trimesh.load_scene(io.BytesIO(data), file_type=kind, resolver=resolver, process=False)
        return scene, [scene.graph[name] for name in scene.graph.nodes_geometry]
    except Exception as error:  # trimesh passes on every kind of error that a damaged file causes
        raise ValueError(f'{path} cannot be read as .{kind} ({type(error).__name__}: {one_line(error)}); it is '
                         'probably truncated or not what its ending says') from error


# Triangles

def _check_faces(path: Path, mesh) -> None:
    """Check that the vertices of a mesh of trimesh have three numbers, and that its faces are on its vertices."""
    faces, vertices = np.asarray(mesh.faces), np.asarray(mesh.vertices)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f'{path} has vertices of shape {vertices.shape}, expected three numbers each; it is broken')
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f'{path} has faces of shape {faces.shape} on vertex {faces.max()} of {len(vertices)}; it is '
                         'broken')


def _make_part(path: Path, mesh, matrix: ndarray, look: Look) -> MeshPart:
    """Transform a mesh of trimesh by the matrix (4, 4) of its node, and gather its corners."""
    faces, vertices = np.asarray(mesh.faces, np.int64), np.asarray(mesh.vertices, np.float64)
    with np.errstate(over='ignore', invalid='ignore'):  # refused below
        triangles = (vertices @ matrix[:3, :3].T + matrix[:3, 3])[faces]
        finite = np.isfinite(triangles.astype(np.float32)).all((1, 2))
    if not finite.all():
        raise ValueError(f'{path} holds NaN or infinite positions, in {(~finite).sum()} of {len(faces)} faces; repair '
                         'it')
    mirrored = np.linalg.det(matrix[:3, :3]) < 0
    order = [0, 2, 1] if mirrored else [0, 1, 2]  # a mirrored node turns its triangles inside out
    normals = np.cross(triangles[:, order[1]] - triangles[:, 0], triangles[:, order[2]] - triangles[:, 0])
    normals = np.repeat(unit_vectors(normals)[:, None], 3, axis=1)
    if 'vertex_normals' in mesh._cache:  # the file's; trimesh otherwise computes some on demand
        given = unit_vectors(np.asarray(mesh.vertex_normals, np.float64)[faces] @ _cofactors(matrix[:3, :3]).T)
        normals = np.where(given.any(-1, keepdims=True), given, normals)
    uv = None if look.texture is None else np.asarray(look.uv, np.float32)[faces][:, order]
    if uv is not None and not np.isfinite(uv).all():
        raise ValueError(f'{path} holds NaN or infinite texture coordinates; repair it')
    colors = None if look.colors is None else look.colors[:, order].astype(np.float32)
    if not np.isfinite(look.base_color).all() or (colors is not None and not np.isfinite(colors).all()):
        raise ValueError(f'{path} has a material or vertices with NaN or infinite colours; repair it')
    return MeshPart(triangles[:, order].astype(np.float32), normals[:, order].astype(np.float32), look.base_color,
                    colors, uv, look.texture)


def _cofactors(matrix: ndarray) -> ndarray:
    """Return the transform of normals for a transform of points (3, 3), possibly singular; outward stays outward."""
    a, b, c = matrix
    cofactors = np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
    return -cofactors if np.linalg.det(matrix) < 0 else cofactors


def _drop_degenerate(part: MeshPart) -> MeshPart:
    """Remove the triangles without area."""
    corners = part.triangles.astype(np.float64)
    kept = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).any(1)
    if kept.all():
        return part
    return part._replace(**{name: value[kept] for name in ('triangles', 'normals', 'colors', 'uv')
                            if (value := getattr(part, name)) is not None})


def _join_parts(parts: list[MeshPart]) -> tuple[MeshPart, ...]:
    """Join parts with the same texture, and those without; every part costs time in every view."""
    groups: dict[int | None, list[MeshPart]] = {}
    for part in parts:
        groups.setdefault(None if part.texture is None else id(part.texture), []).append(part)
    joined = []
    for group in groups.values():
        first = group[0]
        if len(group) > 1:
            uniform = all(part.colors is None and (part.base_color == first.base_color).all() for part in group)
            first = MeshPart(
                triangles=np.concatenate([part.triangles for part in group]),
                normals=np.concatenate([part.normals for part in group]),
                base_color=first.base_color if uniform else np.ones(4, np.float32),
                colors=None if uniform else np.concatenate([_corner_colors(part) for part in group]),
                uv=None if first.uv is None else np.concatenate([part.uv for part in group]),
                texture=first.texture)
        joined.append(first)
    return tuple(joined)


def _corner_colors(part: MeshPart) -> ndarray:
    """Multiply the colours of the corners, (F, 3, 4), by the base colour."""
    colors = np.ones((len(part.triangles), 3, 4), np.float32) if part.colors is None else part.colors
    return colors * part.base_color
