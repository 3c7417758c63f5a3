"""Exact search in a file of embeddings."""
from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from clipgs_plugin.io.files import write_npz


@dataclass(frozen=True, repr=False)
class SearchIndex:
    """Embeddings of objects, paths of their files, and the model that made them.

    Rows are unit vectors, so the score of a match is its cosine.
    """

    embeddings: Tensor       # (n, E) float32, unit
    paths: tuple[str, ...]   # n, absolute; relative ones of older indexes start at the working folder
    model: str               # name or config for CLIPGSInferencer, which embeds queries
    checkpoint: str = ''

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.paths):
            raise ValueError(f'{len(self.paths)} paths for embeddings of shape {tuple(self.embeddings.shape)}, '
                             'expected one row a path')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} objects in {self.embeddings.shape[1]} dimensions, {self.model!r})'

    def __len__(self) -> int:
        return len(self.paths)

    def save(self, path: str | PathLike) -> None:
        """Write an ``.npz`` of plain arrays."""
        write_npz(Path(path), dict(embeddings=self.embeddings.numpy(), paths=np.array(self.paths, dtype=np.str_),
                                   model=np.array(self.model), checkpoint=np.array(self.checkpoint)))

    @classmethod
    def load(cls, path: str | PathLike) -> SearchIndex:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not an index.
        """
        if Path(path).is_dir():
            raise IsADirectoryError(f'{path} is a folder; name the index that tools/embed.py wrote')
        named = Path(path).suffix.lower() == '.npz'  # any other may be the name of a splat
        remedy = f'make one with tools/embed.py FILES -o {path}' if named else 'the name of an index ends in .npz'
        if not Path(path).is_file():
            raise FileNotFoundError(f'index {path} does not exist; {remedy}')
        try:
            with np.load(path, allow_pickle=False) as arrays:
                content = {key: arrays[key] for key in ('embeddings', 'paths', 'model', 'checkpoint')}
        except (ValueError, KeyError, OSError, EOFError, AttributeError, BadZipFile) as error:
            raise ValueError(f'{path} is not an index of embeddings; {remedy}') from error
        return cls(torch.from_numpy(content['embeddings']), tuple(content['paths'].tolist()),
                   str(content['model']), str(content['checkpoint']))

    def query(self, embedding: Tensor, k: int = 10) -> list[tuple[str, float]]:
        """Return paths and cosines of the ``k`` objects nearest to a unit vector (E,), best first."""
        if embedding.shape != self.embeddings.shape[1:]:
            raise ValueError(f'query has shape {tuple(embedding.shape)}, the index holds vectors of '
                             f'{self.embeddings.shape[1]}: was it made with another model ({self.model})?')
        if k < 1:
            raise ValueError(f'k={k}: expected at least 1')
        scores, order = (self.embeddings @ embedding).sort(descending=True, stable=True)
        return [(self.paths[i], float(s)) for i, s in zip(order[:k].tolist(), scores[:k])]
