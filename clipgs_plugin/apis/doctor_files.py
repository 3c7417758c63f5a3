"""Format, version and size of a splat file, and the kind of a file that is none."""
from __future__ import annotations

import gzip
import json
import struct
import zipfile
from pathlib import Path

from clipgs_plugin.io import FORMATS, Format, compressed_ply, gltf, ply, sog, spz
from clipgs_plugin.io.notes import read_notes

# First bytes of files that users name instead of splats.
SIGNATURES = {
    b'\x89PNG': 'PNG picture', b'\xff\xd8\xff': 'JPEG picture', b'RIFF': 'WebP picture', b'glTF': 'glTF binary (.glb)',
    b'\x93NUMPY': 'numpy array (.npy)', b'\x89HDF': 'HDF5 file', b'%PDF': 'PDF document', b'PAR1': 'parquet table',
    b'# .PCD': 'point cloud (.pcd)', b'LASF': 'LiDAR point cloud (.las)', b'PXR-USDC': 'OpenUSD scene',
    b'#usda': 'OpenUSD scene'}
KINDS = {
    '.obj': 'mesh (.obj)', '.stl': 'mesh (.stl)', '.off': 'mesh (.off)', '.fbx': 'mesh (.fbx)', '.gltf': 'glTF scene',
    '.zip': 'zip archive', '.pt': 'checkpoint of PyTorch', '.pth': 'checkpoint of PyTorch',
    '.ckpt': 'checkpoint of PyTorch', '.safetensors': 'file of tensors', '.npz': 'numpy archive (.npz)',
    '.json': 'JSON file', '.txt': 'text file'}


def foreign_kind(path: Path) -> str:
    """Name the kind of a file that is not a splat file by its first bytes or suffix; empty if unknown."""
    if path.is_dir() or not path.exists():
        return ''
    with path.open('rb') as file:
        head = file.read(16)
    named = next((kind for signature, kind in SIGNATURES.items() if head.startswith(signature)), '')
    return named or KINDS.get(path.suffix.lower(), '')


def files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files of a SOG folder."""
    folder = path if path.is_dir() else path.parent if path.name == sog.META else None
    return [path] if folder is None else [folder / sog.META, *folder.glob('*.webp')]


def format_version(path: Path, format: Format) -> str:
    """Return the version of the format that a readable file states; empty for formats without one."""
    if format.name in ('ply', 'compressed-ply'):
        with path.open('rb') as file:
            return file.read(64).splitlines()[1].decode('ascii').removeprefix('format ')
    if format.name == 'spz':
        with path.open('rb') as file:
            head = file.read(8)
        if head.startswith(spz.GZIP):
            with gzip.open(path) as stream:
                head = stream.read(8)
        return str(struct.unpack('<4sI', head)[1])
    if format.name == 'sog':
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.rsplit('/', 1)[-1] == sog.META)
            return str(json.loads(archive.read(name)).get('version', 1))
    if format.name == 'sog-folder':
        meta = path / sog.META if path.is_dir() else path
        return str(json.loads(meta.read_text(encoding='utf-8')).get('version', 1))
    if format.name in ('glb', 'gltf'):
        return gltf.open_gltf(path).document['asset']['version']
    if format.name == 'ksplat':
        with path.open('rb') as file:
            return '{}.{}'.format(*file.read(2))
    return ''


def describe_file(path: Path, format: Format) -> dict:
    """Return format, version and size of a file that was read."""
    if format.name == 'ply' and compressed_ply.is_compressed(ply.open_ply(path)):
        format = FORMATS['compressed-ply']
    return dict(format=format.description, version=format_version(path, format),
                render_mode=read_notes(path).render_mode, bytes=sum(part.stat().st_size for part in files_of(path)))
