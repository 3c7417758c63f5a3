"""State of a served page: its index, thumbnails and tags, the model that embeds queries, and recent queries."""
from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from clipgs_plugin.app.catalog import Catalog
from clipgs_plugin.app.requests import Find
from clipgs_plugin.app.tags import TagFile
from clipgs_plugin.app.thumbnails import Thumbnails

KEPT = 64         # queries by upload that are remembered
MAP_ROWS = 20_000  # objects of a map


class Embedder(Protocol):
    """Functions that embed queries as the objects of the index, each (E,) unit."""

    def text(self, text: str) -> Tensor: ...

    def image(self, path: Path) -> Tensor: ...

    def splat(self, path: Path) -> Tensor: ...


@dataclass
class Site:
    """Sources of the answers of a server.

    Args:
        catalog: Rows of the index.
        thumbnails: Strips of its objects.
        tags: Tags of its objects.
        embedder: Model of the index, which embeds one query at a time.
        exports: Folder in which selections are copied; None allows none.
    """

    catalog: Catalog
    thumbnails: Thumbnails
    tags: TagFile
    embedder: Embedder
    exports: Path | None = None
    _queries: OrderedDict[str, Tensor] = field(default_factory=OrderedDict)
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _places: list | None = None

    def find(self, request: Find) -> dict:
        """Return rows and scores of a query, or all rows that meet the conditions.

        Raises:
            ValueError: There are several queries, or one is unknown or cannot be embedded.
        """
        given = [name for name in ('text', 'like', 'query') if getattr(request, name) is not None]
        if len(given) > 1:
            raise ValueError(f'{" and ".join(given)} are several queries; give one')
        tagged = None if request.tag is None else self.catalog.rows_of(self.tags.read().get(request.tag, ()))
        rows = self.catalog.rows(request.where, tagged)
        if not given:
            return dict(rows=rows.tolist(), scores=None, total=len(rows))
        found, scores = self.catalog.ranked(self._embedding(request), rows, request.limit)
        return dict(rows=found.tolist(), scores=np.round(scores, 4).tolist(), total=len(rows))

    def upload(self, kind: str, path: Path) -> str:
        """Embed an uploaded picture or splat; return the name of the query."""
        with self._busy:
            embedding = self.embedder.image(path) if kind == 'image' else self.embedder.splat(path)
        name = uuid.uuid4().hex
        self._queries[name] = embedding
        while len(self._queries) > KEPT:
            self._queries.popitem(last=False)
        return name

    def places(self) -> list:
        """Return row and place of the objects of a map, by PCA of at most ``MAP_ROWS`` objects."""
        from clipgs_plugin.visualization.embedding_map import project
        with self._busy:
            if self._places is None:
                rows = spread(len(self.catalog), MAP_ROWS)
                places, _, _ = project(self.catalog.index.vectors(rows).numpy())
                self._places = [rows.tolist(), *np.round(places.T, 4).tolist()]
        return self._places

    def _embedding(self, request: Find) -> Tensor:
        if request.like is not None:
            self.catalog.check([request.like])
            return self.catalog.index.vectors([request.like])[0]
        if request.query is not None:
            if request.query not in self._queries:
                raise ValueError('this upload is forgotten; choose the file again')
            return self._queries[request.query]
        with self._busy:
            return self.embedder.text(request.text)


def spread(count: int, most: int) -> np.ndarray:
    """Return at most ``most`` row numbers at equal distances."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)
