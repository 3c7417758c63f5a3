"""Vectors and queries of the benchmark of search: synthetic clusters, clusters around embeddings, or an index."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

STEP = 8192
FAR_COSINE = 0.3  # of texts with pictures, about, in CLIP


@dataclass(frozen=True)
class World:
    """Vectors of an index and queries, which its numbers determine.

    Args:
        rows: Number of vectors, those of ``index`` less the queries.
        width: E.
        queries: Number of objects to ask with.
        seed: Random seed.
        centers: Index, or ``.npz`` with ``embeddings``, whose rows are the centres of the clusters.
        index: Index whose rows are the vectors; the objects to ask with are not among them.
        texts: Embeddings of texts to ask with, (q, E).
    """

    rows: int
    width: int
    queries: int = 0
    seed: int = 0
    centers: str = ''
    index: str = ''
    texts: Tensor | None = None

    def __str__(self) -> str:
        return f'{self.rows:,} x {self.width}'

    @classmethod
    def around(cls, texts: str, **options) -> World:
        """Make a world, with the texts of a file as the model of its index embeds them.

        Raises:
            ValueError: There is no index whose model embeds texts, or it has too few rows.
        """
        world = cls(**options)
        if world.index:
            rows, width = embeddings_of(world.index).shape
            if not 0 < world.queries < rows:
                raise ValueError(f'{world.index} has {rows:,} rows, of which {world.queries} cannot be the queries')
            world = replace(world, rows=rows - world.queries, width=width)
        elif world.centers:
            world = replace(world, width=embeddings_of(world.centers).shape[1])
        return replace(world, texts=embed_texts(texts, world.index or world.centers)) if texts else world

    @cached_property
    def spread(self) -> np.ndarray:
        """Standard deviations along the axes of synthetic clusters, (E,)."""
        return np.arange(1, self.width + 1, dtype=np.float32) ** -0.5

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Centres of the clusters (n, E), and the axes (m, E) along which given ones vary."""
        if self.centers:
            given = embeddings_of(self.centers)
            _, values, axes = np.linalg.svd(given - given.mean(0), full_matrices=False)
            return given, axes * values[:, None] / len(given) ** 0.5  # rows vary as the centres do
        rng = np.random.default_rng(self.seed)
        offset = rng.standard_normal(self.width).astype(np.float32)
        offset *= np.linalg.norm(self.spread) * 0.8 / np.linalg.norm(offset)
        centers = rng.standard_normal((max(self.rows // 100, 1), self.width), np.float32)
        centers *= self.spread
        centers += offset
        return centers, None

    @cached_property
    def held_out(self) -> tuple[Tensor, Tensor]:
        """Rows of the index without the queries, and the queries."""
        found = torch.from_numpy(embeddings_of(self.index))
        order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(found)))
        return found[order[self.queries:].sort().values], found[order[:self.queries]]

    def draw(self, number: int, rng: np.random.Generator) -> Tensor:
        """Return unit vectors (number, E) of random clusters."""
        centers, axes = self.places
        chosen = centers[rng.integers(len(centers), size=number)]
        noise = rng.standard_normal((number, self.width if axes is None else len(axes)), np.float32)
        spread = noise * self.spread if axes is None else noise @ axes
        return normalize(torch.from_numpy(chosen + 0.7 * spread), dim=1)

    def parts(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Yield the vectors, a shard at a time."""
        if self.index:
            yield from self.held_out[0].split(STEP)
        else:
            yield from (self.draw(min(STEP, self.rows - first), rng) for first in range(0, self.rows, STEP))

    def asked(self) -> dict[str, Tensor]:
        """Return the queries of each kind, (q, E)."""
        members = self.held_out[1] if self.index else self.draw(self.queries, np.random.default_rng(self.seed + 2))
        away = torch.from_numpy(np.random.default_rng(self.seed + 3).standard_normal(members.shape).astype(np.float32))
        away = normalize(away - (away * members).sum(1, keepdim=True) * members, dim=1)
        found = {'object' if self.index else 'query': members,
                 'mean of two objects' if self.index else 'query between clusters':
                     normalize(members + members.roll(1, 0), dim=1),
                 'far query': FAR_COSINE * members + (1 - FAR_COSINE ** 2) ** 0.5 * away}
        return found if self.texts is None else {**found, 'text': self.texts}


def embeddings_of(path: str) -> np.ndarray:
    """Return the embeddings of an index, or of an ``.npz`` that has some, as unit vectors (n, E) in float32."""
    if Path(path).is_dir():
        from clipgs_plugin.search import SearchIndex
        return SearchIndex.load(path).embeddings.numpy()
    with np.load(path, allow_pickle=False) as arrays:
        given = arrays['embeddings'].astype(np.float32)
    return given / np.linalg.norm(given, axis=1, keepdims=True)


def embed_texts(path: str, index: str) -> Tensor:
    """Embed the lines of a file by the model of an index, (q, E).

    Raises:
        ValueError: The file has no text, or there is no index.
    """
    from clipgs_plugin import CLIPGSInferencer
    from clipgs_plugin.search import SearchIndex
    if not index:
        raise ValueError('--texts are embedded by the model of an index; name one by --index or --centers')
    lines = [line.strip() for line in Path(path).read_text(encoding='utf-8').splitlines() if line.strip()]
    if not lines:
        raise ValueError(f'{path} has no text; write a query a line')
    card = SearchIndex.load(index).card
    return CLIPGSInferencer(card.model, card.checkpoint or None).embed_text(lines)
