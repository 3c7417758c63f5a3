"""Exact search in a file of embeddings."""
from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.apis.multi_view import model_of_features
from clipgs_plugin.io.arrays import npz_keys, read_npz_of
from clipgs_plugin.io.files import write_npz
from clipgs_plugin.triplets import ShardFeatures, ShardReader
from clipgs_plugin.triplets.layout import GAUSSIANS, shard_path

_ARRAYS = dict(embeddings=('f', 2), paths=('U', 1), model=('U', 0), checkpoint=('U', 0))
_UPS = dict(ups=('U', 1), up_confidences=('f', 1))  # absent from older indexes
_OPTIONS = dict(options=('U', 1))  # likewise
_OPINIONS = dict(up_opinions=('U', 2), up_opinion_confidences=('f', 2))  # of --up-cue model alone
_UNIT = 1e-3  # largest deviation of a length from 1


@dataclass(frozen=True, repr=False)
class SearchIndex:
    """Embeddings of objects, paths of their files, and the model that made them.

    Rows are unit vectors, so the score of a match is its cosine.

    Raises:
        ValueError: The numbers of embeddings and paths differ, or an embedding is not a float32 unit vector.
    """

    embeddings: Tensor       # (n, E) float32, unit
    paths: tuple[str, ...]   # n, absolute; relative ones of older indexes start at the working folder
    model: str               # name or config for CLIPGSInferencer, which embeds queries
    checkpoint: str = ''
    ups: tuple[tuple[str, float], ...] = ()  # up axes and confidences, 1 for a named axis; not in older indexes
    options: tuple[str, ...] = ()  # of tools/embed.py, which prepared the objects, like '--up=-y'; likewise
    up_opinions: tuple[tuple[tuple[str, float], ...], ...] = ()  # axis and confidence by the geometry, by the model

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or len(self.embeddings) != len(self.paths):
            raise ValueError(f'{len(self.paths)} paths for embeddings of shape {tuple(self.embeddings.shape)}, '
                             'expected one row a path')
        if self.ups and len(self.ups) != len(self.paths):
            raise ValueError(f'{len(self.ups)} up axes for {len(self.paths)} paths, expected one a path or none')
        if self.up_opinions and len(self.up_opinions) != len(self.paths):
            raise ValueError(f'{len(self.up_opinions)} opinions on up axes for {len(self.paths)} paths, expected one a '
                             'path or none')
        if self.embeddings.dtype != torch.float32:
            raise ValueError(f'embeddings are {self.embeddings.dtype}, expected torch.float32')
        unit = (self.embeddings.norm(dim=1) - 1).abs() < _UNIT  # no row with NaN
        if not unit.all():
            raise ValueError(f'{int((~unit).sum())} of {len(unit)} embeddings are not unit vectors, the first is that '
                             f'of {self.paths[int(unit.int().argmin())]!r}')

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} objects in {self.embeddings.shape[1]} dimensions, {self.model!r})'

    def __len__(self) -> int:
        return len(self.paths)

    def save(self, path: str | PathLike) -> None:
        """Write an ``.npz`` of plain arrays."""
        arrays = dict(embeddings=self.embeddings.numpy(), paths=np.array(self.paths, dtype=np.str_),
                      model=np.array(self.model), checkpoint=np.array(self.checkpoint))
        if self.ups:
            axes, confidences = zip(*self.ups)
            arrays.update(ups=np.array(axes, dtype=np.str_), up_confidences=np.array(confidences, np.float64))
        if self.up_opinions:
            opinions = np.array(self.up_opinions, dtype=np.str_)  # (n, 2, 2) of axis and confidence
            arrays.update(up_opinions=opinions[..., 0], up_opinion_confidences=opinions[..., 1].astype(np.float64))
        if self.options:
            arrays.update(options=np.array(self.options, dtype=np.str_))
        write_npz(Path(path), arrays)

    @classmethod
    def from_features(cls, root: str | PathLike, teacher: str, split: str | None = None) -> SearchIndex:
        """Make an index of a triplet dataset from a teacher's cached features of its views, without any rendering.

        An object is the mean of the unit features of its views, as in :class:`~clipgs_plugin.models.MultiViewCLIP`,
        whose model ``views:TEACHER`` embeds queries. Its path is that of its shard and, within it, of its Gaussians.

        Args:
            root: Folder of the dataset.
            teacher: Name of the features, which ``tools/cache_features.py`` wrote.
            split: Split of the objects; None takes all.

        Raises:
            FileNotFoundError: There is no dataset, or it lacks the features.
            ValueError: No object is in the split.
        """
        reader = ShardReader(root)
        features = ShardFeatures(reader, teacher)
        chosen = [i for i, found in enumerate(reader.splits) if split in (None, found)]
        if not chosen:
            raise ValueError(f'{root} has no objects of split {split!r}, only of {sorted(set(reader.splits))}')
        views = torch.from_numpy(np.stack([features.image(i) for i in chosen])).float()
        pooled = normalize(normalize(views, dim=-1).mean(1), dim=-1)
        paths = tuple(str(shard_path(reader.root.resolve(), int(reader.shards[i])) / f'{reader.uids[i]}.{GAUSSIANS}')
                      for i in chosen)
        return cls(pooled, paths, model_of_features(teacher))

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
            keys = npz_keys(Path(path))
            content = read_npz_of(Path(path), _ARRAYS | (_UPS if 'ups' in keys else {})
                                  | (_OPTIONS if 'options' in keys else {})
                                  | (_OPINIONS if 'up_opinions' in keys else {}))
            ups = zip(content['ups'].tolist(), content['up_confidences'].tolist(), strict=True) if 'ups' in keys else ()
            options = content['options'].tolist() if 'options' in keys else ()
            opinions = [tuple(zip(*row, strict=True)) for row in zip(
                content['up_opinions'].tolist(), content['up_opinion_confidences'].tolist(), strict=True)
                        ] if 'up_opinions' in keys else ()
            return cls(torch.from_numpy(content['embeddings']), tuple(content['paths'].tolist()),
                       str(content['model']), str(content['checkpoint']), tuple(ups), tuple(options), tuple(opinions))
        except (ValueError, TypeError) as error:
            raise ValueError(f'{path} is not an index of embeddings ({error}); {remedy}') from error

    def query(self, embedding: Tensor, k: int = 10) -> list[tuple[str, float]]:
        """Return paths and cosines of the ``k`` objects nearest to a unit vector (E,), best first."""
        if embedding.shape != self.embeddings.shape[1:]:
            raise ValueError(f'query has shape {tuple(embedding.shape)}, the index holds vectors of '
                             f'{self.embeddings.shape[1]}: was it made with another model ({self.model})?')
        if k < 1:
            raise ValueError(f'k={k}: expected at least 1')
        scores, order = (self.embeddings @ embedding).sort(descending=True, stable=True)
        return [(self.paths[i], float(s)) for i, s in zip(order[:k].tolist(), scores[:k])]
