"""glTF 2.0 as a container: JSON, buffers, accessors and the node tree, checked; ``.glb`` and ``.gltf``.

Hand-written: pygltflib and trimesh check neither counts nor offsets before they allocate, and know no attribute of
Gaussians.
"""
from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from clipgs_plugin.io.checked_json import read_json

MAGIC = b'glTF'
POINTS, FLOAT, UNSIGNED_BYTE = 0, 5126, 5121
COMPONENTS = {5120: '<i1', 5121: '<u1', 5122: '<i2', 5123: '<u2', 5125: '<u4', 5126: '<f4'}
TYPES = {'SCALAR': 1, 'VEC3': 3, 'VEC4': 4}
_HEADER, _CHUNK = struct.Struct('<4sII'), struct.Struct('<II')
_JSON, _BIN = 0x4E4F534A, 0x004E4942
_BASE64 = ';base64,'
_NODE = {'children?': [int], 'mesh?': int, 'matrix?': [float] * 16, 'translation?': [float] * 3,
         'rotation?': [float] * 4, 'scale?': [float] * 3}
_SCHEMA = {
    'asset': {'version': str}, 'scene?': int, 'scenes?': [{'nodes?': [int]}], 'nodes?': [_NODE],
    'meshes?': [{'primitives': [{'attributes': dict, 'mode?': int, 'extensions?': dict}]}],
    'accessors?': [{'bufferView?': int, 'byteOffset?': int, 'componentType': int, 'normalized?': bool, 'count': int,
                    'type': str}],
    'bufferViews?': [{'buffer': int, 'byteOffset?': int, 'byteLength': int, 'byteStride?': int}],
    'buffers?': [{'byteLength': int, 'uri?': str}], 'extensionsUsed?': [str], 'extensionsRequired?': [str]}


@dataclass(frozen=True)
class Gltf:
    """A parsed document over the bytes of its buffers."""

    path: Path
    document: dict[str, Any]
    held: int                  # bytes of the file and of the buffers beside it that were read
    binary: bytes | None       # the binary chunk of a .glb
    _buffers: dict[int, bytes] = field(default_factory=dict)

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """Return an entry of a list of the document, such as ``accessors``.

        Raises:
            ValueError: There is no such entry.
        """
        items = self.document.get(kind, [])
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(items):
            raise ValueError(f'{self.path}: refers to {kind} {index!r:.40}, expected a number below {len(items)}; '
                             'it is damaged, export it again')
        return items[index]

    def view(self, index: Any) -> memoryview:
        """Return the bytes of a buffer view."""
        view = self.item('bufferViews', index)
        data, start, size = self._buffer(view['buffer']), view.get('byteOffset', 0), view['byteLength']
        if start < 0 or size < 0 or start + size > len(data):
            raise ValueError(f'{self.path}: bufferViews[{index}] takes {size} bytes from {start}, its buffer holds '
                             f'{len(data)}; it is truncated or damaged, export it again')
        return memoryview(data)[start:start + size]

    def accessor(self, index: Any) -> tuple[np.ndarray, bool]:
        """Return the elements of an accessor, (count, components), without a copy, and True for normalised integers.

        Raises:
            ValueError: The type is unknown, the accessor is sparse, or its view does not hold its elements.
        """
        accessor = self.item('accessors', index)
        kind, component, count = accessor['type'], accessor['componentType'], accessor['count']
        if kind not in TYPES or component not in COMPONENTS or 'sparse' in accessor or 'bufferView' not in accessor:
            raise ValueError(f'{self.path}: accessors[{index}] of type {kind!r:.20}, component type {component}, '
                             f'expected {", ".join(TYPES)} of {", ".join(map(str, COMPONENTS))} in a bufferView, not '
                             'sparse; export it again')
        dtype, width = np.dtype(COMPONENTS[component]), TYPES[kind]
        data, start = self.view(accessor['bufferView']), accessor.get('byteOffset', 0)
        size = dtype.itemsize * width
        stride = self.item('bufferViews', accessor['bufferView']).get('byteStride', size)
        if count < 1 or start < 0 or stride < size or start + stride * (count - 1) + size > len(data):
            raise ValueError(f'{self.path}: accessors[{index}] promises {count} elements of {size} bytes, {stride} '
                             f'apart, from byte {start}; its bufferView holds {len(data)}; it is truncated or damaged, '
                             'export it again')
        values = np.ndarray((count, width), dtype, data, start, (stride, dtype.itemsize))
        return values, bool(accessor.get('normalized', False))

    def numbers(self, index: Any) -> np.ndarray:
        """Return the elements of an accessor as numbers, (count, components); normalised integers are in [-1, 1]."""
        values, normalised = self.accessor(index)
        if not normalised or values.dtype.kind == 'f':
            return values
        return np.maximum(values.astype(np.float64) / np.iinfo(values.dtype).max, -1)

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item('buffers', index)
        if index not in self._buffers:
            if 'uri' in buffer:
                data = _load_uri(self.path, buffer['uri'])
            elif index == 0 and self.binary is not None:
                data = self.binary
            else:
                raise ValueError(f'{self.path}: buffers[{index}] has no uri and the file no binary chunk; export it '
                                 'again')
            if not 0 <= buffer['byteLength'] <= len(data):
                raise ValueError(f'{self.path}: buffers[{index}] promises {buffer["byteLength"]} bytes, it holds '
                                 f'{len(data)}; it is truncated, download or export it again')
            self._buffers[index] = data[:buffer['byteLength']]
        return self._buffers[index]

    def instances(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Iterate over the nodes with a mesh: number of the node, number of the mesh, world matrix (4, 4) float64.

        The nodes are those of the default scene, or all if the file has no scene.

        Raises:
            ValueError: A node has two parents or is below itself, or its matrix is not finite.
        """
        nodes, scenes = self.document.get('nodes', []), self.document.get('scenes', [])
        if scenes:
            roots = self.item('scenes', self.document.get('scene', 0)).get('nodes', [])
        else:
            children = {child for node in nodes for child in node.get('children', [])}
            roots = [i for i in range(len(nodes)) if i not in children]
        pending, seen = [(root, np.eye(4)) for root in reversed(roots)], set()
        while pending:
            index, above = pending.pop()
            node = self.item('nodes', index)
            if index in seen:
                raise ValueError(f'{self.path}: nodes[{index}] has two parents, expected a tree; export it again')
            seen.add(index)
            with np.errstate(all='ignore'):
                matrix = above @ _local_matrix(node)
            if not np.isfinite(matrix).all():
                raise ValueError(f'{self.path}: the matrix of nodes[{index}] is not finite; export it again')
            if 'mesh' in node:
                yield index, node['mesh'], matrix
            pending += [(child, matrix) for child in reversed(node.get('children', []))]


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    """Return the matrix of a node, (4, 4), from its matrix (by columns) or translation, rotation (xyzw) and scale."""
    if 'matrix' in node:
        return np.array(node['matrix'], np.float64).reshape(4, 4).T
    x, y, z, w = node.get('rotation', (0, 0, 0, 1))
    norm = math.hypot(x, y, z, w)
    x, y, z, w = (value / norm if norm else math.nan for value in (x, y, z, w))
    matrix = np.eye(4)
    matrix[:3, :3] = [[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                      [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                      [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
    matrix[:3, :3] *= np.array(node.get('scale', (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get('translation', (0, 0, 0))
    return matrix


def _load_uri(path: Path, uri: str) -> bytes:
    """Return the content of a data URI in base64, or of a file in the folder of the document."""
    if uri.startswith('data:'):
        head, found, body = uri.partition(_BASE64)
        try:
            if not found:
                raise ValueError('no base64')
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f'{path}: a buffer in a data URI {head[:40]!a} is not base64; export it again') from None
    name = unquote(uri)
    if not name or Path(name).is_absolute() or any(part in name for part in ('\0', '\\', ':')) or (
            '..' in Path(name).parts):
        raise ValueError(f'{path}: a buffer lies at {name[:60]!a}, expected a file in the folder of the document; '
                         'export it as one .glb')
    target = path.parent / name
    if not target.is_file():
        raise ValueError(f'{path}: its buffer {name[:60]!a} is not in its folder; copy it there, or export it as one '
                         '.glb')
    return target.read_bytes()


def open_gltf(path: Path) -> Gltf:
    """Read a ``.glb`` or ``.gltf`` and check its JSON; buffers are read when they are needed.

    Raises:
        ValueError: The file is damaged, of another version, or its JSON has values of wrong types.
    """
    data = path.read_bytes()
    text, binary = _chunks(path, data) if data.startswith(MAGIC) else (data, None)
    document = read_json(text, str(path), _SCHEMA)
    if not document['asset']['version'].startswith('2.'):
        raise ValueError(f'{path}: glTF version {document["asset"]["version"][:20]!a}, expected 2.0; export it again')
    return Gltf(path, document, len(data), binary)


def _chunks(path: Path, data: bytes) -> tuple[bytes, bytes | None]:
    """Return the JSON and the binary chunk of a ``.glb``; chunks of other types are skipped."""
    if len(data) < _HEADER.size:
        raise ValueError(f'{path}: {len(data)} bytes, a .glb has a header of {_HEADER.size}; download it again')
    _, version, length = _HEADER.unpack_from(data)
    if version != 2 or length != len(data):
        raise ValueError(f'{path}: its header promises version {version} and {length} bytes, expected version 2 and '
                         f'{len(data)}; it is truncated or damaged, download or export it again')
    chunks, offset = {}, _HEADER.size
    while offset < len(data):
        size, kind = _CHUNK.unpack_from(data, offset) if offset + _CHUNK.size <= len(data) else (len(data), 0)
        offset += _CHUNK.size
        if offset + size > len(data):
            raise ValueError(f'{path}: a chunk promises {size} bytes, {len(data) - offset} are left; it is damaged, '
                             'download or export it again')
        chunks.setdefault(kind, data[offset:offset + size])
        offset += size
    if _JSON not in chunks:
        raise ValueError(f'{path}: has no JSON chunk; it is damaged, download or export it again')
    return chunks[_JSON], chunks.get(_BIN)


def write_parts(document: dict[str, Any], buffer: bytes, binary: bool) -> list[bytes]:
    """Return a document with one buffer as the parts of a ``.glb``, or of a ``.gltf`` with the buffer in base64."""
    buffer += bytes(-len(buffer) % 4)
    uri = {} if binary else {'uri': 'data:application/octet-stream;base64,' + base64.b64encode(buffer).decode()}
    text = json.dumps({**document, 'buffers': [{'byteLength': len(buffer), **uri}]}, separators=(',', ':')).encode()
    if not binary:
        return [text]
    text += b' ' * (-len(text) % 4)
    size = _HEADER.size + 2 * _CHUNK.size + len(text) + len(buffer)
    return [_HEADER.pack(MAGIC, 2, size), _CHUNK.pack(len(text), _JSON), text, _CHUNK.pack(len(buffer), _BIN), buffer]


