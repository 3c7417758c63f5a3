"""Places of the objects of a map, computed once."""
from __future__ import annotations

import hashlib
import multiprocessing
import threading
from pathlib import Path

import numpy as np

from clipgs_plugin.io.arrays import read_npy
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.search import SearchIndex
from clipgs_plugin.visualization.embedding_map import has_umap, project

MOST = 20_000    # objects of a map
PATIENCE = 5.0   # seconds until a request for places that are not ready is answered


class Maps:
    """Layouts of the objects of an index on a plane, at most ``MOST`` of them at equal distances.

    PCA takes a moment. UMAP may take minutes and holds the interpreter's lock meanwhile, so that a process computes
    it, and a file keeps it.

    Args:
        index: Index with the vectors.
        folder: Folder of files that keep layouts.
    """

    def __init__(self, index: SearchIndex, folder: Path) -> None:
        self.index, self.folder = index, folder
        self.rows = spread(len(index), MOST)
        self._known: dict[str, np.ndarray] = {}
        self._work: multiprocessing.process.BaseProcess | None = None
        self._mutex = threading.Lock()

    def places(self, method: str = 'pca') -> np.ndarray | None:
        """Return the places (n, 2) of ``rows``, or None while they are being computed.

        Raises:
            ImportError: umap-learn is not installed.
            ValueError: UMAP ended without a result.
        """
        with self._mutex:
            if method not in self._known:
                vectors = self.index.vectors(self.rows).numpy()
                if not len(vectors):
                    found = np.zeros((0, 2), np.float32)
                else:
                    found = project(vectors)[0] if method == 'pca' else self._by_umap(vectors)
                if found is None:
                    return None
                self._known[method] = found
            return self._known[method]

    def _by_umap(self, vectors: np.ndarray) -> np.ndarray | None:
        """Wait a moment for the file of a process, which is started if there is none."""
        if not has_umap():
            raise ImportError('a map by UMAP needs umap-learn, of the extra report; pip install umap-learn')
        path = self.folder / f'umap-{hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()[:16]}.npy'
        if not path.is_file():
            if self._work is None:
                self._work = multiprocessing.get_context('spawn').Process(target=write_umap, args=(vectors, path),
                                                                          daemon=True)
                self._work.start()
            self._work.join(PATIENCE)
            if self._work.is_alive():
                return None
            self._work = None
            if not path.is_file():
                raise ValueError('UMAP could not lay out the objects; the output of the program says why')
        found = read_npy(path)
        if found.shape != (len(self.rows), 2) or found.dtype != np.float32 or not np.isfinite(found).all():
            raise ValueError(f'{path} holds {found.shape} of {found.dtype}, expected finite float32 '
                             f'({len(self.rows)}, 2); delete it')
        return found


def write_umap(
    vectors: np.ndarray,  # (n, E) unit
    path: Path,
) -> None:
    """Write a layout by UMAP as float32 (n, 2) in an ``.npy``."""
    import io
    buffer = io.BytesIO()
    np.save(buffer, project(vectors, 'umap')[0].astype(np.float32), allow_pickle=False)
    write_whole(path, [buffer.getbuffer()])


def spread(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` row numbers at equal distances."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)
