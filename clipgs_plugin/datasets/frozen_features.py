"""Frozen features: unit embeddings of labelled objects in a file."""
from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.io.arrays import read_npz_of
from clipgs_plugin.io.files import write_npz


@dataclass(frozen=True, repr=False)
class FrozenFeatures:
    """Embeddings of labelled objects, computed once by a frozen encoder.

    A file is an ``.npz`` with the arrays ``embeddings`` (n, E), ``labels`` (n,), ``uids`` (n,), ``classes`` (C,) and
    ``fingerprint`` (). Rows of any length but zero are read as directions.

    Raises:
        ValueError: Lengths differ, a uid repeats, a label is out of range, or a row is zero or not finite.
    """

    embeddings: Tensor         # (n, E) float32, normalised here
    labels: Tensor             # (n,) int64, 0 to C - 1
    uids: Sequence[str]        # (n,)
    classes: Sequence[str]     # (C,)
    fingerprint: str = ''      # of checkpoint, data and pipeline; empty if unknown

    def __post_init__(self) -> None:
        object.__setattr__(self, 'uids', tuple(self.uids))
        object.__setattr__(self, 'classes', tuple(self.classes))
        object.__setattr__(self, 'labels', self.labels.long())
        if self.embeddings.ndim != 2 or not len(self.labels) == len(self.uids) == len(self.embeddings) > 0:
            raise ValueError(f'embeddings {tuple(self.embeddings.shape)} with {len(self.labels)} labels and '
                             f'{len(self.uids)} uids, expected (n, E) with n of each and n of at least 1')
        if len(set(self.uids)) < len(self.uids):
            raise ValueError(f'the uid {Counter(self.uids).most_common(1)[0][0]!r} is that of several objects')
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= len(self.classes):
            raise ValueError(f'labels run from {int(self.labels.min())} to {int(self.labels.max())}, expected 0 to '
                             f'{len(self.classes) - 1} for {len(self.classes)} classes')
        wrong = ~self.embeddings.isfinite().all(1) | ~self.embeddings.any(1)
        if wrong.any():
            raise ValueError(f'the embedding of {self.uids[int(wrong.int().argmax())]!r} is zero, NaN or infinite')
        object.__setattr__(self, 'embeddings', normalize(self.embeddings.double(), dim=1).float())

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}({len(self)} objects of {len(self.classes)} classes in '
                f'{self.embeddings.shape[1]} dimensions)')

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {uid: row for row, uid in enumerate(self.uids)}

    def rows(self, uids: Sequence[str]) -> list[int]:
        """Return the rows of objects.

        Raises:
            ValueError: An object is not among the features.
        """
        missing = next((uid for uid in uids if uid not in self._row_of), None)
        if missing is not None:
            raise ValueError(f'object {missing!r} of the folds is not among the {len(self)} features; compute the '
                             'features of the data that the folds were drawn from')
        return [self._row_of[uid] for uid in uids]

    def take(self, uids: Sequence[str]) -> Tensor:
        """Return the embeddings of objects, (n, E)."""
        return self.embeddings[self.rows(uids)]

    def save(self, path: str | PathLike) -> None:
        """Write an ``.npz``."""
        write_npz(Path(path), dict(
            embeddings=self.embeddings.numpy(), labels=self.labels.numpy(), uids=np.array(self.uids),
            classes=np.array(self.classes), fingerprint=np.array(self.fingerprint)))

    @classmethod
    def load(cls, path: str | PathLike) -> FrozenFeatures:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or of another layout.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'features {path} do not exist; tools/few_shot.py writes them')
        found = read_npz_of(path, dict(embeddings=('f', 2), labels=('i', 1), uids=('U', 1), classes=('U', 1),
                                       fingerprint=('U', 0)))
        try:
            return cls(torch.from_numpy(found['embeddings'].astype(np.float32)),
                       torch.from_numpy(found['labels'].astype(np.int64)), found['uids'].tolist(),
                       found['classes'].tolist(), str(found['fingerprint']))
        except ValueError as error:
            raise ValueError(f'{path}: {error}; delete it and compute the features again') from error
