"""Where objects come from: sources by name, and how files tell which of them reads a folder."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from clipgs_plugin.io.sog import META
from clipgs_plugin.triplets.sources.base import Source, uid_of
from clipgs_plugin.triplets.sources.manifests import SUFFIXES as MANIFESTS
from clipgs_plugin.triplets.sources.manifests import ManifestSource, source_type
from clipgs_plugin.triplets.sources.meshes import MeshSource
from clipgs_plugin.triplets.sources.points import PointSource
from clipgs_plugin.triplets.sources.posed_images import ColmapSource, NerfSource
from clipgs_plugin.triplets.sources.splats import SplatSource

# By the names that programs know them by.
SOURCES = {'mesh': MeshSource, 'points': PointSource, 'splats': SplatSource, 'nerf': NerfSource,
           'colmap': ColmapSource, 'manifest': ManifestSource}
LOOKED_AT = 1000  # files of a folder
_BY_TYPE = {kind.__name__: name for name, kind in SOURCES.items()}


def detect_source(root: str | Path) -> str:
    """The name in ``SOURCES`` that fits a file or the first files of a folder.

    Most files decide; a ``.ply`` is splats, a mesh or points by its header.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: No file tells.
    """
    root = Path(root)
    if not root.exists():
        raise FileNotFoundError(f'{root} does not exist')
    found = Counter(kind for path in islice(_files(root), LOOKED_AT) if (kind := _kind(path, root)))
    for decisive in ('nerf', 'colmap'):  # such folders hold pictures, and often a cloud beside them
        if found[decisive]:
            return decisive
    if not found:
        raise ValueError(f'{root} holds nothing that tells a source; expected meshes, point clouds, splats, posed '
                         f'images or a manifest; name one of {", ".join(SOURCES)}')
    return found.most_common(1)[0][0]


def _files(root: Path) -> Iterator[Path]:
    return iter([root]) if root.is_file() else (path for path in root.rglob('*') if path.is_file())


def _kind(path: Path, root: Path) -> str | None:
    """The source that a file tells of, if it tells any."""
    name = path.name.lower()
    if name.startswith('transforms') and name.endswith('.json'):
        return 'nerf'
    if name in ('cameras.bin', 'cameras.txt'):
        return 'colmap'
    if name.endswith(MANIFESTS):
        return 'manifest' if path == root else None
    if name.endswith('.txt'):
        return None  # points as a rule are not, in a folder of other files
    try:
        return _BY_TYPE[source_type(path.parent if name == META else path)]
    except ValueError:
        return None


__all__ = ['SOURCES', 'ColmapSource', 'ManifestSource', 'MeshSource', 'NerfSource', 'PointSource', 'Source',
           'SplatSource', 'detect_source', 'uid_of']
