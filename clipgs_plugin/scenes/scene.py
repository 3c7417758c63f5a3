"""A scene as its file has it."""
from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from numpy import ndarray

from clipgs_plugin.io import read_gaussians
from clipgs_plugin.scenes.label_files import LabelSource, find_labels, read_labels, scene_columns, valid_rows
from clipgs_plugin.structures import GaussianCloud


@dataclass(frozen=True, eq=False)
class Scene:
    """Gaussians of a scene, with what else its file has.

    Attributes:
        cloud: The Gaussians.
        path: Its file, or None.
        columns: Further properties of a ``.ply``, (N,) by name.
        kept: Mask of the Gaussians of the file that the cloud has, where invalid ones were dropped.
    """

    cloud: GaussianCloud
    path: Path | None = None
    columns: dict[str, ndarray] = field(default_factory=dict)
    kept: ndarray | None = None

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.cloud):,} Gaussians of {self.name})'

    @property
    def name(self) -> str:
        """Name of the scene in messages."""
        return str(self.path or 'the scene')

    @classmethod
    def read(cls, path: str | os.PathLike, clean: bool = False) -> Scene:
        """Read a splat file of any format.

        Args:
            path: The file.
            clean: Drop invalid Gaussians instead of refusing the file.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is damaged, or has invalid Gaussians.
        """
        path = Path(path)
        cloud, columns = read_gaussians(path, clean=clean), scene_columns(path)
        kept = valid_rows(path) if clean else None
        return cls(cloud, path, columns if kept is None else {k: v[kept] for k, v in columns.items()}, kept)

    def find_labels(self) -> LabelSource | None:
        """Find labels in the file of the scene or beside it; None if there are none."""
        return None if self.path is None else find_labels(self.path)

    def read_labels(self, source: LabelSource | str | Path) -> ndarray:
        """Read labels of a source of :func:`~clipgs_plugin.scenes.read_labels`, one a Gaussian of the cloud.

        Raises:
            ValueError: The scene has no file.
        """
        if self.path is None:
            raise ValueError(f'labels {source!s} belong to a file, and the scene was not read from one; give the '
                             'array of the labels, or the path of the scene')
        found = read_labels(self.path, source)
        if self.kept is not None and found.shape[:1] == self.kept.shape:  # else of another scene, or of the valid ones
            found = found[self.kept]
        return found
