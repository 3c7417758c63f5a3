"""Sources of objects by name, and the choice of the source that reads a folder."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from clipgs_plugin.generation.sources.base import Source
from clipgs_plugin.generation.sources.colmap import ColmapSource
from clipgs_plugin.generation.sources.manifest import FOLDER_FILES, ManifestSource, source_type
from clipgs_plugin.generation.sources.manifest import SUFFIXES as MANIFESTS
from clipgs_plugin.generation.sources.mesh import MeshSource
from clipgs_plugin.generation.sources.nerf import NerfSource
from clipgs_plugin.generation.sources.points import PointSource
from clipgs_plugin.generation.sources.splats import SplatSource

SOURCES = {'mesh': MeshSource, 'points': PointSource, 'splats': SplatSource, 'nerf': NerfSource,
           'colmap': ColmapSource, 'manifest': ManifestSource}
# Objects in three dimensions that no source reads.
_UNREAD = ('.3ds', '.3mf', '.abc', '.blend', '.ckpt', '.dae', '.e57', '.fbx', '.iges', '.las', '.laz', '.max', '.pt',
           '.pts', '.step', '.stp', '.usd', '.usda', '.usdc', '.usdz', '.vtk', '.wrl', '.x3d')
_MAX_FILES, _MAX_PER_FOLDER = 1000, 50  # so that a folder of images does not hide the files after it
_NAMES = {kind.__name__: name for name, kind in SOURCES.items()}


def detect_source(root: str | Path) -> str:
    """Return the name in ``SOURCES`` that fits a file, or most of the first files of a folder.

    The header of a ``.ply`` decides between splats, a mesh and points. Errors are those of :func:`found_sources`.
    """
    return next(iter(found_sources(root)))


def found_sources(root: str | Path) -> dict[str, int]:
    """Count the files of each source by its name in ``SOURCES``; the one of :func:`detect_source` comes first.

    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: No file identifies a source.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f'{root} does not exist')
    if (root / 'dataset.json').is_file():
        raise ValueError(f'{root} is a triplet dataset; give the files that triplets are to be made of')
    found = Counter(kind for path in islice(_first_files(root), _MAX_FILES) if (kind := _kind(path, root)))
    if not found:
        raise ValueError(f'{root} holds no file that identifies a source; expected meshes, point clouds, splats, posed '
                         f'images or a manifest; name one of {", ".join(SOURCES)}'
                         + (f', or convert its files of {", ".join(unread)}' if (unread := unread_files(root)) else ''))
    for decisive in ('nerf', 'colmap'):  # such folders hold images, and often a point cloud
        if found[decisive]:
            return {decisive: found[decisive]}
    return dict(found.most_common())


def unread_files(root: str | Path) -> dict[str, int]:
    """Count the first files of a folder that hold objects but that no source reads, by ending, the most first."""
    endings = (path.suffix.lower() for path in islice(_first_files(Path(root)), _MAX_FILES))
    return dict(Counter(ending for ending in endings if ending in _UNREAD).most_common())


def _first_files(root: Path) -> Iterator[Path]:
    """Yield a file, or the first files of every folder by name, without hidden ones, which sources skip as well."""
    if root.is_file():
        yield root
        return
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith('.'))
        first = sorted(name for name in names if not name.startswith('.'))[:_MAX_PER_FOLDER]
        yield from (Path(folder) / name for name in {**dict.fromkeys(name for name in FOLDER_FILES if name in names),
                                                     **dict.fromkeys(first)})


def _kind(path: Path, root: Path) -> str | None:
    """Return the source that a file identifies, if any."""
    name = path.name.lower()
    if name.endswith(MANIFESTS):
        return 'manifest' if path == root else None
    if name.endswith('.txt') and name not in FOLDER_FILES:
        return None  # most text files hold no points
    try:
        return _NAMES[source_type(path)]
    except ValueError:
        return None


__all__ = ['SOURCES', 'ColmapSource', 'ManifestSource', 'MeshSource', 'NerfSource', 'PointSource', 'Source',
           'SplatSource', 'detect_source', 'found_sources', 'unread_files']
