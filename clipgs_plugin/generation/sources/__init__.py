"""Where objects come from: sources by name, and how files tell which of them reads a folder."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from clipgs_plugin.generation.sources.base import Source, uid_of
from clipgs_plugin.generation.sources.manifest import FOLDER_FILES, ManifestSource, source_type
from clipgs_plugin.generation.sources.manifest import SUFFIXES as MANIFESTS
from clipgs_plugin.generation.sources.mesh import MeshSource
from clipgs_plugin.generation.sources.points import PointSource
from clipgs_plugin.generation.sources.posed_images import ColmapSource, NerfSource
from clipgs_plugin.generation.sources.splats import SplatSource

# By the names that programs know them by.
SOURCES = {'mesh': MeshSource, 'points': PointSource, 'splats': SplatSource, 'nerf': NerfSource,
           'colmap': ColmapSource, 'manifest': ManifestSource}
LOOKED_AT, OF_EACH = 1000, 50  # files, so that a folder of pictures does not hide what lies after it
_BY_TYPE = {kind.__name__: name for name, kind in SOURCES.items()}


def detect_source(root: str | Path) -> str:
    """The name in ``SOURCES`` that fits a file or the first files of a folder.

    Most files decide; a ``.ply`` is splats, a mesh or points by its header.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: No file tells.
    """
    return next(iter(found_sources(root)))


def found_sources(root: str | Path) -> dict[str, int]:
    """Files of each source, by the names in ``SOURCES``, first that of :func:`detect_source`; it says the errors."""
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f'{root} does not exist')
    if (root / 'dataset.json').is_file():
        raise ValueError(f'{root} is a folder of triplets; give the files that they are to be made of')
    found = Counter(kind for path in islice(_files(root), LOOKED_AT) if (kind := _kind(path, root)))
    if not found:
        raise ValueError(f'{root} holds nothing that tells a source; expected meshes, point clouds, splats, posed '
                         f'images or a manifest; name one of {", ".join(SOURCES)}')
    for decisive in ('nerf', 'colmap'):  # such folders hold pictures, and often a cloud beside them
        if found[decisive]:
            return {decisive: found[decisive]}
    return dict(found.most_common())


def _files(root: Path) -> Iterator[Path]:
    """A file, or the first few of every folder, by name; hidden ones are passed over, as sources do."""
    if root.is_file():
        yield root
        return
    for folder, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith('.'))
        first = sorted(name for name in names if not name.startswith('.'))[:OF_EACH]
        yield from (Path(folder) / name for name in {**dict.fromkeys(name for name in FOLDER_FILES if name in names),
                                                     **dict.fromkeys(first)})


def _kind(path: Path, root: Path) -> str | None:
    """The source that a file tells of, if it tells any."""
    name = path.name.lower()
    if name.endswith(MANIFESTS):
        return 'manifest' if path == root else None
    if name.endswith('.txt') and name not in FOLDER_FILES:
        return None  # points as a rule are not, in a folder of other files
    try:
        return _BY_TYPE[source_type(path)]
    except ValueError:
        return None


__all__ = ['SOURCES', 'ColmapSource', 'ManifestSource', 'MeshSource', 'NerfSource', 'PointSource', 'Source',
           'SplatSource', 'detect_source', 'found_sources', 'uid_of']
