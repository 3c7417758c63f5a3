"""State of a served page: its index, thumbnails and tags, the model that embeds queries, and recent queries."""
from __future__ import annotations

import hashlib
import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from clipgs_plugin.app.catalog import Catalog
from clipgs_plugin.app.maps import Maps
from clipgs_plugin.app.requests import Find
from clipgs_plugin.app.tags import TagFile
from clipgs_plugin.app.thumbnails import Thumbnails
from clipgs_plugin.search.layout import CARD, RECORD, REMOVED

KEPT = 64  # queries by upload that are remembered


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

    def __post_init__(self) -> None:
        self.maps = Maps(self.catalog.index, self.thumbnails.folder.parent)

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


class Outdated(ValueError):
    """State of an index that is not the present one, in which rows may be other objects."""


class Sites:
    """The site of an index as it was read last.

    Objects are named by their rows, which change with the index. A page therefore names the state that it was made
    from. The index is read again when a page is opened after it has changed; pages of the former state are refused.

    Args:
        read: Function that reads the index.
        stamp: Function that names its present state, such as :func:`stamp_of`.

    Raises:
        ValueError, OSError: The index cannot be read.
    """

    def __init__(self, read: Callable[[], Site], stamp: Callable[[], str]) -> None:
        self._read, self._stamp, self._mutex = read, stamp, threading.Lock()
        self._state = stamp(), read()  # in this order, so that a change in between is seen later

    def newest(self) -> tuple[str, Site]:
        """Return name and site of the present state, read again if the index has changed."""
        with self._mutex:
            if self.has_changed():
                self._state = self._stamp(), self._read()
            return self._state

    def has_changed(self) -> bool:
        """Check whether the index differs from what was read."""
        return self._stamp() != self._state[0]

    def at(self, state: str | None = None) -> Site:
        """Return the site of a state, or the one that was read last.

        Raises:
            Outdated: It is of another state.
        """
        name, site = self._state
        if state not in (None, name):
            raise Outdated('the index was read again since this page was opened; load the page again')
        return site


def stamp_of(index: Path) -> str:
    """Return a name for the state of an index on disk, which a change of its files changes."""
    digest = hashlib.sha256(os.fsencode(index.resolve()))
    for path in [index / name for name in (CARD, REMOVED, RECORD)] if index.is_dir() else [index]:
        if path.exists():
            found = path.stat()
            digest.update(f'{path.name} {found.st_size} {found.st_mtime_ns} {found.st_ino} '.encode())
    return digest.hexdigest()[:16]

