"""Building of the codes for approximate search, with memory for a sample and the codes."""
from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.search.approximate import (
    CENTROIDS,
    Approximate,
    Tables,
    files_of,
    import_faiss,
    sample_rows,
)
from clipgs_plugin.search.card import Shard, read_card
from clipgs_plugin.search.commit import commit, finish
from clipgs_plugin.search.folder import open_folder
from clipgs_plugin.search.layout import RECORD
from clipgs_plugin.search.record import Recall, Record
from clipgs_plugin.search.vectors import STEP, Vectors

MIN_ROWS = 4096       # below, the exact search of all rows is as fast
MAX_LISTS = 4096
SAMPLE = 40           # vectors a list in training
AXES_SAMPLE = 16_384  # vectors that the principal axes are of
DIMENSIONS = 256      # principal axes
PARTS = 128           # of a code
CODE_SAMPLE = 1024    # vectors an entry of a codebook in training
ITERATIONS = 10       # of k-means
QUERIES, K = 100, 10  # of each kind, and their neighbours, by which recall is measured
PROBES = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
CANDIDATES = (200, 500, 1000)
LEAST_CODES = 25_000  # that a search reads: they take less than 1 ms, and texts are harder than random directions
TARGET = 0.95         # recall of each kind, of which the mean less its standard error reaches it
FAR_COSINE = 0.3      # of a far query with its row, about that of texts with pictures in CLIP


def build_approximate(folder: str | PathLike, seed: int = 0,
                      progress: Callable[[int, int], None] = lambda done, total: None) -> Record:
    """Build the codes of an index beside it, and choose how many lists a search reads by measuring the recall.

    Args:
        folder: Folder of the index.
        seed: Seed of the sample and of the queries.
        progress: Function of the rows that are coded and all rows.

    Raises:
        ImportError: faiss is not installed.
        FolderInUse: Another process writes the index.
        ValueError: The index has too few rows, or one of its files is not the one that was written.
    """
    folder = Path(folder)
    import_faiss()
    read_card(folder)
    with folder_lock(folder):
        finish(folder)
        _, shards, vectors, _ = open_folder(folder, verify=True)
        if len(vectors) < MIN_ROWS:
            raise ValueError(f'{folder} has {len(vectors)} rows, which are searched exactly in no time; approximate '
                             f'search is for {MIN_ROWS} and more')
        tables, index = _coded(vectors, seed, progress)
        unknown = Recall(0., 0., 0.)  # so all lists are read
        commit(folder, files_of(Record(shards, len(tables.centers), CANDIDATES[-1], unknown), tables, index))
        del index
        record = _tuned(folder, shards, vectors, seed)
        commit(folder, [(RECORD, [record.content()])])
    return record


def _coded(vectors: Vectors, seed: int, progress: Callable[[int, int], None]):
    """Return the tables, trained on a sample, and the index of faiss with the codes of all rows."""
    import faiss
    lists = min(MAX_LISTS, 2 ** round(math.log2(2 * math.sqrt(len(vectors)))))
    few = vectors.take(sample_rows(vectors, AXES_SAMPLE, seed))
    mean = few.mean(0)
    _, axes = torch.linalg.eigh((few - mean).T @ (few - mean) / len(few))
    d = min(DIMENSIONS, vectors.width // 4 * 4 or vectors.width)
    axes, mean = axes.flip(1).T[:d].numpy(), mean.numpy()
    parts = min(PARTS, d)
    while d % parts:
        parts -= 1
    trained = faiss.IndexIVFPQ(faiss.IndexFlatL2(d), d, lists, parts, 4)
    trained.use_precomputed_table = -1  # none, since searching is done by another index
    trained.cp.niter, trained.cp.seed = ITERATIONS, seed + 1
    trained.pq.cp.niter, trained.pq.cp.max_points_per_centroid = ITERATIONS, CODE_SAMPLE
    trained.cp.min_points_per_centroid = trained.pq.cp.min_points_per_centroid = 1  # no warnings on standard output
    # Early axes vary most: they are dealt to the parts in turn, so that each has its share.
    axes = np.ascontiguousarray(axes.reshape(d // parts, parts, -1).transpose(1, 0, 2).reshape(d, -1))
    untrained = Tables(axes, mean, np.empty((0, d)), np.empty((parts, CENTROIDS, d // parts)), np.empty(0, np.int64))
    rows = np.array_split(sample_rows(vectors, SAMPLE * lists, seed), max(SAMPLE * lists // STEP, 1))
    trained.train(np.concatenate([untrained.project(vectors.take(part).numpy()) for part in rows]))
    done = 0
    for rows, block in vectors.steps():
        trained.add_with_ids(untrained.project(block.numpy()), vectors.positions(rows))
        done += len(rows)
        progress(done, len(vectors))
    sizes = np.array([trained.invlists.list_size(i) for i in range(lists)], np.int64)
    centers = trained.quantizer.reconstruct_n(0, lists)
    codebooks = faiss.vector_to_array(trained.pq.centroids).reshape(parts, CENTROIDS, d // parts)
    return Tables(axes, mean, centers, codebooks, sizes), trained


def _tuned(folder: Path, shards: tuple[Shard, ...], vectors: Vectors, seed: int) -> Record:
    """Find the fewest lists, and then the fewest candidates, whose recall of all kinds of queries is the target."""
    queries, own = _queries(vectors, seed)
    found = Approximate(folder, shards, vectors)
    written = found.record
    truth = [_others(rows, out) for rows, out in zip(nearest_of_many(vectors, queries, K + 2).tolist(), own)]

    def hits(probes: int, candidates: int) -> np.ndarray:
        found.record = replace(written, probes=probes, candidates=candidates)
        return np.array([len({*exact} & {*_others(found.nearest(query, K + 2)[0].tolist(), out)}) / len(exact)
                         for query, out, exact in zip(queries, own, truth)]).reshape(3, -1)

    def enough(hits: np.ndarray) -> bool:
        return bool((hits.mean(1) - hits.std(1) / hits.shape[1] ** 0.5 >= TARGET).all())

    def least(choices: Sequence[int], measure: Callable[[int], np.ndarray]) -> int:
        return choices[min(bisect_left(choices, True, key=lambda x: enough(measure(x))), len(choices) - 1)]

    lists = len(found.tables.centers)
    fewest = math.ceil(lists * LEAST_CODES / len(vectors))
    probes = least(sorted({min(max(fewest, probes), lists) for probes in PROBES}), lambda x: hits(x, CANDIDATES[-1]))
    candidates = least(CANDIDATES, lambda x: hits(probes, x))
    recall = Recall(*hits(probes, candidates).mean(1).round(4).tolist())
    return replace(written, probes=probes, candidates=candidates, recall=recall)


def _queries(vectors: Vectors, seed: int) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Return queries (3q, E) and the rows that each is made of, which are no neighbours of it.

    A third of them are rows of the index, a third the means of two rows, which lie between clusters, and a third rows
    turned away by random directions, about as far as texts lie from objects.
    """
    rng = np.random.default_rng(seed + 2)
    rows, one, other, turned = rng.choice(len(vectors), (4, QUERIES), replace=False)
    between = normalize(vectors.take(one) + vectors.take(other), dim=1)
    source = vectors.take(turned)
    random = torch.from_numpy(rng.standard_normal(source.shape).astype(np.float32))
    random = normalize(random - (random * source).sum(1, keepdim=True) * source, dim=1)
    far = FAR_COSINE * source + (1 - FAR_COSINE ** 2) ** 0.5 * random
    own = [*zip(rows.tolist()), *zip(one.tolist(), other.tolist()), *zip(turned.tolist())]
    return torch.cat([vectors.take(rows), between, far]), own


def _others(rows: list[int], own: tuple[int, ...]) -> list[int]:
    """Return the first neighbours among rows, best first, of a query that is made of ``own``."""
    return [row for row in rows if row not in own][:K]


def nearest_of_many(vectors: Vectors, queries: Tensor, k: int, chosen: np.ndarray | None = None) -> Tensor:
    """Return the rows (q, k) of the exact nearest vectors of queries (q, E), of all or of ``chosen``, in one pass."""
    best = torch.full((len(queries), k), -torch.inf)
    rows = torch.zeros(len(queries), k, dtype=torch.int64)
    for numbers, block in vectors.steps(chosen):
        scores = torch.cat([best, queries @ block.T], 1)
        numbered = torch.cat([rows, torch.from_numpy(numbers).expand(len(queries), -1)], 1)
        best, order = scores.topk(k)
        rows = numbered.gather(1, order)
    return rows
