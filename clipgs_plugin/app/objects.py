"""Objects of an index as a page names and reads them: by the number of their row, never by a path."""
from __future__ import annotations

import os
from pathlib import Path

from clipgs_plugin.io import format_of_name, read_gaussians
from clipgs_plugin.ops.rotations import AXES, axis_change
from clipgs_plugin.search import SearchIndex
from clipgs_plugin.structures import GaussianCloud

MAX_BYTES = 2 ** 31  # of a file that is drawn or given out


class IndexedObjects:
    """Files of an index, in the order of its rows.

    An index may come from a stranger and name any file of this machine. Files are therefore read only if they are
    splats by their suffix, also that of the file which a link leads to.

    Args:
        index: Embeddings with the paths of their files.
    """

    def __init__(self, index: SearchIndex) -> None:
        self.paths = index.paths
        self.ups = tuple(axis if axis in AXES else 'y' for axis, _ in index.ups) or ('y',) * len(index)
        folders = {os.path.dirname(path) for path in self.paths}
        self.folder = os.path.commonpath(folders) if folders and len({os.path.isabs(each) for each in folders}) == 1 \
            else ''

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        """Return a path from the folder that all objects share."""
        return os.path.relpath(self.paths[row], self.folder) if self.folder else self.paths[row]

    def file(self, row: int) -> Path:
        """Return the path of an object's file.

        Raises:
            FileNotFoundError: The index does not have the row, or the file is gone.
            ValueError: The file is no splat by its name, or too large.
        """
        if not 0 <= row < len(self):
            raise FileNotFoundError(f'row {row}: the index has {len(self)} objects')
        path = Path(self.paths[row])
        real = path.resolve()
        for each in (path, real):
            format_of_name(each)
        if not real.is_file():
            raise FileNotFoundError(f'{path} does not exist; embed the objects again where they lie now')
        if real.stat().st_size > MAX_BYTES:
            raise ValueError(f'{path} has {real.stat().st_size:,} bytes, expected at most {MAX_BYTES:,}')
        return path

    def cloud(self, row: int) -> GaussianCloud:
        """Read an object and turn its up axis to y."""
        cloud, up = read_gaussians(self.file(row)), self.ups[row]
        return cloud if up == 'y' else cloud.transform(axis_change(up))
