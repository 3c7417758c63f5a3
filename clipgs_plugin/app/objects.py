"""Objects of an index as a page names and reads them: by the number of their row, never by a path."""
from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from clipgs_plugin.io import format_of_name, read_gaussians
from clipgs_plugin.ops.rotations import AXES, axis_change
from clipgs_plugin.search import SearchIndex
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.triplets import ShardReader
from clipgs_plugin.triplets.layout import GAUSSIANS

MAX_BYTES = 2 ** 31  # of a file that is drawn or given out


class IndexedObjects:
    """Objects of an index, in the order of its rows: splat files, or objects in the shards of a triplet dataset.

    An index may come from a stranger and name any file of this machine. Files are therefore read only if they are
    splats by their suffix, also that of the file which a link leads to.

    Args:
        index: Embeddings with the paths of their files.
        prepare: Function that prepares a file's Gaussians, with their up axis, as they were embedded; None turns y up.
        preparation: Description of what it does beyond that.
    """

    def __init__(self, index: SearchIndex, prepare: Callable[[GaussianCloud, str], GaussianCloud] | None = None,
                 preparation: str = '') -> None:
        self.paths, self.prepare, self.preparation = index.paths, prepare or _turned, preparation
        self.ups = tuple(axis if axis in AXES else 'y' for axis, _ in index.ups) or ('y',) * len(index)
        folders = {os.path.dirname(path) for path in self.paths}
        alike = len({os.path.isabs(each) for each in folders}) == 1
        self.folder = os.path.commonpath(folders) if alike else ''
        self._readers: dict[Path, tuple[ShardReader, dict[str, int]]] = {}
        self._mutex = threading.Lock()

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
        self.check(row)
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
        """Read an object, y up and prepared.

        Raises:
            OSError, ValueError: See :meth:`file`, or the object is damaged.
        """
        if self.is_in_shard(row):
            return self._read_shard(Path(self.paths[row]))
        return self.prepare(read_gaussians(self.file(row)), self.ups[row])

    def is_in_shard(self, row: int) -> bool:
        """Check whether an object lies in a shard of triplets, by its path ``OUT/shards/00000.tar/UID.gaussians...``.

        Raises:
            FileNotFoundError: The index does not have the row.
        """
        self.check(row)
        return self.paths[row].endswith(f'.{GAUSSIANS}') and os.path.dirname(self.paths[row]).endswith('.tar')

    def check(self, row: int) -> None:
        """Refuse a row that the index does not have.

        Raises:
            FileNotFoundError: It does not.
        """
        if not 0 <= row < len(self):
            raise FileNotFoundError(f'row {row}: the index has {len(self)} objects')

    def _read_shard(self, path: Path) -> GaussianCloud:
        root, uid = path.parent.parent.parent, path.name.removesuffix(f'.{GAUSSIANS}')
        with self._mutex:  # a reader has one place in each of its files
            if root not in self._readers:
                reader = ShardReader(root)
                self._readers[root] = reader, {uid: i for i, uid in enumerate(reader.uids)}
            reader, number = self._readers[root]
            if uid not in number:
                raise FileNotFoundError(f'{root} does not have the object {uid}; write the index again')
            return reader.read_gaussians(number[uid])


def _turned(cloud: GaussianCloud, up: str) -> GaussianCloud:
    return cloud if up == 'y' else cloud.transform(axis_change(up))
