"""Building of the codes for approximate search, with memory for a sample and the codes."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.search.approximate import Approximate, Tables, files_of, import_faiss, sample_rows
from clipgs_plugin.search.card import Shard, read_card
from clipgs_plugin.search.commit import commit, finish
from clipgs_plugin.search.folder import open_folder
from clipgs_plugin.search.layout import RECORD
from clipgs_plugin.search.record import Reading, Record
from clipgs_plugin.search.vectors import STEP, Vectors

MIN_ROWS = 4096       # below, the exact search of all rows is as fast
MAX_LISTS = 4096
SAMPLE = 40           # vectors a list in training
AXES_SAMPLE = 16_384  # vectors that the principal axes are of
DIMENSIONS = 128      # principal axes
CODE_BYTES = 32       # of a vector
CODE_SAMPLE = 64      # vectors an entry of a codebook in training
ITERATIONS = 10       # of k-means
QUERIES, K = 100, 10  # of the measurement of recall
PROBES = (4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
CANDIDATES, FAR_CANDIDATES = 200, 1000
TARGET, BETWEEN, FAR = 0.95, 0.9, 0.95  # recall at 10 of rows, of means of two rows, and of far queries
FAR_LISTS = 4     # times those of other queries at least, since real texts are harder than random directions
FAR_COSINE = 0.3  # of a far query with its row, about that of texts with pictures in CLIP
NEAR = 0.1        # share of the measured queries near to rows that count as far


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
        every = Reading(len(tables.centers), CANDIDATES, 0.)  # until fewer lists are known to be enough
        commit(folder, files_of(Record(shards, every, 0.), tables, index))
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
    codes = min(CODE_BYTES, max(d // 2, 1))
    while d % codes:
        codes -= 1
    trained = faiss.IndexIVFPQ(faiss.IndexFlatL2(d), d, lists, codes, 8)
    trained.cp.niter, trained.cp.seed = ITERATIONS, seed + 1
    trained.pq.cp.niter, trained.pq.cp.max_points_per_centroid = ITERATIONS, CODE_SAMPLE
    trained.cp.min_points_per_centroid = trained.pq.cp.min_points_per_centroid = 1  # no warnings on standard output
    # Early axes vary most: they are dealt to the codes in turn, so that each has its share.
    axes = np.ascontiguousarray(axes.reshape(d // codes, codes, -1).transpose(1, 0, 2).reshape(d, -1))
    untrained = Tables(axes, mean, np.empty((0, d)), np.empty((codes, 256, d // codes)), np.empty(0, np.int64))
    rows = np.array_split(sample_rows(vectors, SAMPLE * lists, seed), max(SAMPLE * lists // STEP, 1))
    trained.train(np.concatenate([untrained.project(vectors.take(part).numpy()) for part in rows]))
    done = 0
    for rows, block in vectors.steps():
        trained.add_with_ids(untrained.project(block.numpy()), vectors.positions(rows))
        done += len(rows)
        progress(done, len(vectors))
    sizes = np.array([trained.invlists.list_size(i) for i in range(lists)], np.int64)
    centers = trained.quantizer.reconstruct_n(0, lists)
    codebooks = faiss.vector_to_array(trained.pq.centroids).reshape(codes, 256, d // codes)
    return Tables(axes, mean, centers, codebooks, sizes), trained


def _tuned(folder: Path, shards: tuple[Shard, ...], vectors: Vectors, seed: int) -> Record:
    """Find the fewest lists with which the recall of all kinds of queries is the target."""
    queries, own = _queries(vectors, seed)
    third = len(own) // 3
    truth = [set(rows) - {row} for rows, row in zip(nearest_of_many(vectors, queries, K + 1).tolist(), own)]
    found = Approximate(folder, shards, vectors)
    written = found.record

    def recall(record: Record, start: int, stop: int) -> float:
        found.record = record
        return float(np.mean([len(exact & set(found.nearest(query, K + 1)[0].tolist())) / len(exact)
                              for query, exact in zip(queries[start:stop], truth[start:stop])]))

    def enough(probes: int) -> bool:
        return probes >= len(found.tables.centers)

    for probes in PROBES:
        near = replace(written, usual=Reading(probes, CANDIDATES, 0.))
        of_rows, between = recall(near, 0, third), recall(near, third, 2 * third)
        if (of_rows >= TARGET and between >= BETWEEN) or enough(probes):
            break
    usual = Reading(probes, CANDIDATES, round(of_rows, 4))
    for probes in (each for each in PROBES if each >= min(FAR_LISTS * usual.probes, PROBES[-1])):
        far = Reading(probes, FAR_CANDIDATES, 0.)
        of_far = recall(replace(written, usual=usual, far=far, near=2.), 2 * third, 3 * third)
        if of_far >= FAR or enough(probes):
            break
    best = [max(float(vectors.take([row]) @ query) for row in rows) for query, rows in zip(queries, truth)]
    return replace(written, usual=usual, recall_between=round(between, 4), far=replace(far, recall=round(of_far, 4)),
                   near=round(float(np.quantile(best[:2 * third], NEAR)), 4))


def _queries(vectors: Vectors, seed: int) -> tuple[Tensor, list[int]]:
    """Return queries (3q, E) and the row of each to leave out, or -1.

    A third of them are rows of the index, a third the means of two rows, which lie between clusters, and a third rows
    turned away by random directions, about as far as texts lie from objects.
    """
    rows = sample_rows(vectors, QUERIES, seed + 1)
    half = len(rows) // 2
    found, rng = vectors.take(rows), np.random.default_rng(seed + 2)
    first, second = found[:half], found[half:2 * half]
    between = normalize(second + first[rng.permutation(half)], dim=1)
    away = torch.from_numpy(rng.standard_normal((half, vectors.width)).astype(np.float32))
    away = normalize(away - (away * second).sum(1, keepdim=True) * second, dim=1)
    far = FAR_COSINE * second + (1 - FAR_COSINE ** 2) ** 0.5 * away
    return torch.cat([first, between, far]), [*rows[:half].tolist(), *[-1] * (2 * half)]


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
