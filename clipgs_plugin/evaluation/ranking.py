"""Ranks and average precision in a full gallery, in chunks that bound memory."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.evaluation.functional import check_scores

CHUNK_SCORES = 2 ** 23  # scores held at once: 64 MiB in float64, and four times that with what is computed from them


@dataclass(frozen=True)
class Ranking:
    """Results of queries in a gallery."""

    ranks: Tensor               # (Q,) int64, of the best positive, from 1
    average_precisions: Tensor  # (Q,) float64, over all positives, 0 to 1


def rank_scores(scores: Tensor, positives: Tensor) -> Ranking:
    r"""Rank the positives of each query.

    With the positives of a query in descending order of their scores :math:`s_1 \ge \dots \ge s_P`, and :math:`a_i`
    negatives of a score of at least :math:`s_i`,

    .. math:: \mathrm{rank} = 1 + a_1, \qquad \mathrm{AP} = \frac{1}{P} \sum_{i=1}^{P} \frac{i}{i + a_i}

    Ties are therefore pessimistic: a negative comes before a positive of the same score.

    Args:
        scores: Scores of the gallery, (Q, G), higher is better.
        positives: Right answers, (Q, G) bool, at least one a query.

    Raises:
        ValueError: Shapes differ, a score is not finite, or a query has no positive.
    """
    check_scores(scores, positives)
    counts = positives.sum(-1)                                                      # (Q,)
    rows, columns = positives.nonzero(as_tuple=True)
    slots = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    best = scores.new_full((len(scores), int(counts.max())), -torch.inf)            # (Q, P), padded
    best[rows, slots] = scores[rows, columns]
    best = best.sort(-1, descending=True).values
    # numpy's sort of rows is several times as fast as torch's.
    negatives = torch.from_numpy(np.sort(scores.masked_fill(positives, -torch.inf).numpy(), axis=-1))
    above = scores.shape[1] - torch.searchsorted(negatives, best)                   # (Q, P)
    place = torch.arange(1, best.shape[1] + 1, dtype=torch.float64)
    precisions = torch.where(place <= counts[:, None], place / (place + above), 0)
    return Ranking(above[:, 0] + 1, precisions.sum(-1) / counts)


def rank_gallery(queries: Tensor, gallery: Tensor, query_ids: Tensor, gallery_ids: Tensor,
                 chunk: int | None = None) -> Ranking:
    """Rank by cosine in a full gallery; equal ids are right answers.

    Cosines are computed in float64 and rounded to float32, so that equal rows give equal scores, and ties are ties.

    Args:
        queries: Embeddings, (Q, E).
        gallery: Embeddings, (G, E).
        query_ids: Integers, (Q,).
        gallery_ids: Integers, (G,), with the id of every query among them.
        chunk: Number of queries scored at once; it bounds memory and does not change the result. None chooses it by
            the size of the gallery.

    Raises:
        ValueError: There are no queries, an embedding is not finite, or a query has no positive.
    """
    if not len(queries):
        raise ValueError('no queries, of which a mean would be taken; evaluate at least one object')
    chunk = chunk or max(1, CHUNK_SCORES // len(gallery))
    entries = normalize(gallery.double(), dim=-1).T
    parts = [rank_scores((normalize(q.double(), dim=-1) @ entries).float(), ids[:, None] == gallery_ids)
             for q, ids in zip(queries.split(chunk), query_ids.split(chunk))]
    return Ranking(torch.cat([part.ranks for part in parts]), torch.cat([part.average_precisions for part in parts]))


def retrieval_ranks(queries: Tensor, gallery: Tensor, query_ids: Tensor, gallery_ids: Tensor,
                    chunk: int | None = None) -> Tensor:
    """Return the ranks of :func:`rank_gallery`, (Q,) int64."""
    return rank_gallery(queries, gallery, query_ids, gallery_ids, chunk).ranks
