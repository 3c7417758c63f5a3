"""An index of embeddings and their metadata, in memory or in a folder."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.search import commit
from clipgs_plugin.search.approximate import Approximate
from clipgs_plugin.search.card import IndexCard
from clipgs_plugin.search.duplicates import duplicate_groups
from clipgs_plugin.search.exact import nearest, unit_query
from clipgs_plugin.search.filters import Filter, as_filters
from clipgs_plugin.search.folder import open_folder
from clipgs_plugin.search.layout import CARD, RECORD, is_index
from clipgs_plugin.search.metadata import ShardMetadata, TableMetadata
from clipgs_plugin.search.npz import UpOpinions, Ups, check_rows, read_index, write_index
from clipgs_plugin.search.record import REMEDY as REBUILD
from clipgs_plugin.search.record import refuse_other_codes
from clipgs_plugin.search.vectors import Vectors

if TYPE_CHECKING:
    import pyarrow as pa

FEW = 50_000        # rows that meet the conditions, which are searched exactly
CACHED_COLUMNS = 4  # of conditions
SHOWN_COLUMNS = 50  # in an error
LEAST_SHARE = 0.9   # of the rows that codes cover, without a warning


@dataclass(frozen=True)
class Match:
    """An object that a query found."""

    row: int
    path: str
    score: float  # cosine
    metadata: dict = field(default_factory=dict, repr=False)


class SearchIndex:
    """Embeddings of objects, paths of their files and other metadata, and the model that made them.

    Rows are unit vectors, so the score of a match is its cosine. :meth:`load` reads an ``.npz`` into memory and maps
    a folder; :class:`~clipgs_plugin.search.IndexWriter` writes folders.

    Raises:
        ValueError: The numbers of embeddings and paths differ, or an embedding is not a float32 unit vector.
    """

    def __init__(
        self,
        embeddings: Tensor,  # (n, E) float32, unit
        paths: Sequence[str],  # n, absolute; relative ones of older indexes start at the working folder
        model: str,  # name or config for CLIPGSInferencer, which embeds queries
        checkpoint: str = '',
        ups: Ups = (),  # up axes and confidences, 1 for a named axis; not in older indexes
        options: tuple[str, ...] = (),  # of tools/embed.py, which prepared the objects, like '--up=-y'; likewise
        up_opinions: UpOpinions = (),  # axis and confidence by the geometry, by the model
    ) -> None:
        check_rows(embeddings, paths, ups, up_opinions)
        self.card = IndexCard(model, embeddings.shape[1], checkpoint, options=tuple(options))
        self.folder: Path | None = None
        self._vectors = Vectors([embeddings], embeddings.shape[1])
        # The properties of these names.
        self.__dict__.update(embeddings=embeddings, paths=tuple(paths), ups=tuple(ups), up_opinions=tuple(up_opinions))

    @classmethod
    def _of_folder(cls, folder: Path, verify: bool) -> SearchIndex:
        self = cls.__new__(cls)
        self.folder = folder
        self.card, self._shards, self._vectors, self._metadata = open_folder(folder, verify)
        if verify and (folder / RECORD).is_file():
            refuse_other_codes(folder)
        return self

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} objects in {self.card.width} dimensions, {self.model!r})'

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def model(self) -> str:
        """Name or config for :class:`~clipgs_plugin.CLIPGSInferencer`, which embeds queries."""
        return self.card.model

    @property
    def checkpoint(self) -> str:
        """Weights of the model, empty for those of its name."""
        return self.card.checkpoint

    @property
    def options(self) -> tuple[str, ...]:
        """Options of ``tools/embed.py``, which prepared the objects."""
        return self.card.options

    @cached_property
    def _metadata(self) -> TableMetadata | ShardMetadata:
        import pyarrow as pa
        columns = dict(path=pa.array([path.encode('utf-8', 'backslashreplace').decode() for path in self.paths]))
        if self.ups:
            axes, confidences = zip(*self.ups)
            columns.update(up=pa.array(axes, pa.string()), up_confidence=pa.array(confidences, pa.float64()))
        return TableMetadata(pa.table(columns), self.paths)

    @cached_property
    def embeddings(self) -> Tensor:
        """All vectors, (n, E) float32 unit, in memory."""
        return self._vectors.take(np.arange(len(self)))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """Path of each row."""
        return tuple(self._column('path').to_pylist())

    @cached_property
    def ups(self) -> Ups:
        """Up axis and its confidence of each row, 1 for a named axis; empty where they are not known."""
        if not {'up', 'up_confidence'} <= set(self._metadata.names):
            return ()
        axes, confidences = self._column('up').to_pylist(), self._column('up_confidence').to_pylist()
        return () if None in axes else tuple((axis, 1. if number is None else number)
                                             for axis, number in zip(axes, confidences))

    @cached_property
    def up_opinions(self) -> UpOpinions:
        """Up axis and confidence by the geometry and by the model of each row, of an index with ``--up-cue model``."""
        names = [f'up_{by}{end}' for by in ('geometry', 'model') for end in ('', '_confidence')]
        if not set(names) <= set(self._metadata.names):
            return ()
        found = [self._column(name).to_pylist() for name in names]
        return () if any(None in values for values in found) else tuple(
            ((a, b), (c, d)) for a, b, c, d in zip(*found))

    @property
    def table(self) -> pa.Table:
        """Metadata in the order of the rows."""
        return self._metadata.table()

    def vectors(self, rows: Sequence[int] | np.ndarray | Tensor) -> Tensor:
        """Return rows (m,) as float32 unit vectors (m, E)."""
        return self._vectors.take(rows)

    def rows(self, where: str | Filter | Sequence[str | Filter]) -> np.ndarray:
        """Return the rows that meet all conditions, ascending.

        Args:
            where: Conditions such as ``'category=chair'``, see :func:`~clipgs_plugin.search.parse_filter`.

        Raises:
            ValueError: A condition has no such form, or names no column.
        """
        held = np.ones(len(self), dtype=bool)
        for condition in as_filters(where):
            held &= condition.mask(self._column(condition.column)).to_numpy()
        return np.flatnonzero(held)

    @cached_property
    def approximate(self) -> Approximate | None:
        """Codes that ``tools/search.py INDEX --build-approximate`` wrote beside the index, which searches use.

        A warning says if faiss is not installed, or if they cover less than :data:`LEAST_SHARE` of the rows.
        """
        if self.folder is None or not (self.folder / RECORD).is_file():
            return None
        try:
            found = Approximate(self.folder, self._shards, self._vectors)
        except ImportError as error:
            warnings.warn(f'{error}; {self.folder} is searched exactly', stacklevel=3)
            return None
        if found.share < LEAST_SHARE:
            warnings.warn(f'{self.folder / RECORD} covers {found.share:.0%} of the rows, the others are searched '
                          f'exactly; {REBUILD}', stacklevel=3)
        return found

    def find(self, embedding: Tensor, k: int = 10, where: str | Filter | Sequence[str | Filter] = (),
             exact: bool = False) -> list[Match]:
        """Return the ``k`` objects nearest to a unit vector (E,), best first.

        The cosines are always exact. An index with codes (:attr:`approximate`) may miss some of the nearest.

        Args:
            embedding: Query, (E,).
            k: Number of objects, fewer if fewer meet the conditions.
            where: Conditions on the metadata, all of which an object has to meet.
            exact: Compare with every row.

        Raises:
            ValueError: The query has another width, k is not positive, or a condition is wrong.
        """
        if k < 1:
            raise ValueError(f'k={k}: expected at least 1')
        query, k = unit_query(embedding, self.card.width, self.model), min(k, max(len(self), 1))
        chosen = self.rows(where) if where else None
        few = chosen is not None and len(chosen) <= FEW
        rows, scores = (nearest(self._vectors, query, k, chosen) if exact or few or self.approximate is None
                        else self.approximate.nearest(query, k, chosen))
        return [Match(int(row), metadata['path'], float(score), metadata)
                for row, score, metadata in zip(rows, scores, self._metadata.take(rows))]

    def query(self, embedding: Tensor, k: int = 10) -> list[tuple[str, float]]:
        """Return paths and cosines of the ``k`` objects nearest to a unit vector (E,), best first."""
        return [(match.path, match.score) for match in self.find(embedding, k)]

    def duplicates(self, threshold: float = 0.97, exact: bool = False,
                   progress: Callable[[int, int], None] = lambda done, total: None) -> list[list[int]]:
        """Return groups of rows that chains of cosines of at least ``threshold`` connect, largest first.

        Codes (:attr:`approximate`) tell which rows are too far apart to be compared. The groups are the same.

        Args:
            threshold: Least cosine of a pair.
            exact: Compare all pairs in any case.
            progress: Function of the rows that are done and all rows.
        """
        tables = None if exact or self.approximate is None else self.approximate.tables
        return duplicate_groups(self._vectors, threshold, tables, progress)

    def batches(self, rows: int = 10_000) -> pa.RecordBatchReader:
        """Return a reader of Arrow batches of all rows, which databases of vectors take.

        Their columns are ``id`` (the row), ``vector`` (float32 of the width) and the metadata.

        Args:
            rows: Most rows of a batch.
        """
        import pyarrow as pa
        table = self.table
        kinds = {field.name: field.type for field in table.schema if field.name not in ('id', 'vector')}
        schema = pa.schema([('id', pa.int64()), ('vector', pa.list_(pa.float32(), self.card.width)), *kinds.items()])

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, len(self), rows):
                chosen = np.arange(start, min(start + rows, len(self)))
                vectors = pa.FixedSizeListArray.from_arrays(self.vectors(chosen).numpy().ravel(), self.card.width)
                part = table.select(list(kinds)).slice(start, rows).combine_chunks()
                yield from pa.table([pa.array(chosen), vectors, *part.columns], schema=schema).to_batches()
        return pa.RecordBatchReader.from_batches(schema, batches())

    def save(self, path: str | PathLike) -> None:
        """Write an ``.npz`` of plain arrays."""
        write_index(Path(path), self.embeddings, self.paths, self.model, self.checkpoint, self.ups, self.options,
                    self.up_opinions)

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
        from clipgs_plugin.models.teachers.sources import model_of_features
        from clipgs_plugin.triplets import ShardFeatures, ShardReader
        from clipgs_plugin.triplets.layout import GAUSSIANS, shard_path
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
    def load(cls, path: str | PathLike, verify: bool = False) -> SearchIndex:
        """Map the folder of an index, or read an ``.npz`` of :meth:`save`.

        Args:
            path: Folder or file.
            verify: Read all files of a folder and compare them with their SHA-256, as is done in any case for one
                of up to 64 MB.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not an index, or is damaged.
        """
        path = Path(path)
        if not path.is_dir():
            found = cls(*read_index(path))
            found.card.refuse_foreign_config(path)
            return found
        if not is_index(path) and not commit.is_pending(path):
            raise IsADirectoryError(f'{path} is a folder without an index ({CARD}, which tells the model of its '
                                    'vectors); name the index that tools/embed.py wrote')
        return commit.read_unchanged(path, lambda: cls._of_folder(path, verify))

    def _column(self, name: str) -> pa.ChunkedArray:
        if name not in self._metadata.names:
            more = ', ...' * (len(self._metadata.names) > SHOWN_COLUMNS)
            raise ValueError(f'{name!r} is no column of the index; it has '
                             f'{", ".join(self._metadata.names[:SHOWN_COLUMNS])}{more}')
        return self._read_column(name)

    @cached_property
    def _read_column(self) -> Callable[[str], pa.ChunkedArray]:
        return lru_cache(CACHED_COLUMNS)(lambda name: self._metadata.table([name])[name])
