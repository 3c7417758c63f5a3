"""Scores to numbers: pure functions on tensors, in the way the tables of the field read."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of every row of a with every row of b, (N, E) and (M, E) to (N, M) float32.

    Summed in float64 and rounded after, so that equal rows give equal scores and ties are ties.
    """
    return (normalize(a.double(), dim=-1) @ normalize(b.double(), dim=-1).T).float()


def ranks(scores: Tensor, positives: Tensor) -> Tensor:
    """The rank of the best positive of each query, 1 for the best.

    Ties are ranked pessimistically: a negative that scores as high as the best positive comes before it. Positives
    do not push each other down.

    Args:
        scores: (Q, G), higher is better.
        positives: (Q, G) bool, what counts as a right answer, at least one a query.

    Returns:
        (Q,) int64, 1 to G.

    Raises:
        ValueError: Shapes differ, a score is not finite, or a query has no positive.
    """
    if scores.shape != positives.shape:
        raise ValueError(f'scores {tuple(scores.shape)} and positives {tuple(positives.shape)} differ in shape')
    if not scores.isfinite().all():
        bad = int((~scores.isfinite()).any(-1).sum())
        raise ValueError(f'{bad} of {len(scores)} queries have scores that are not finite; an embedding holds NaN '
                         'or infinity')
    lonely = (~positives.any(-1)).nonzero()[:, 0]
    if len(lonely):
        raise ValueError(f'{len(lonely)} of {len(scores)} queries have no positive, the first is {int(lonely[0])}')
    best = scores.masked_fill(~positives, -torch.inf).amax(-1, keepdim=True)
    return ((scores >= best) & ~positives).sum(-1) + 1


def retrieval_ranks(queries: Tensor, gallery: Tensor, query_ids: Tensor, gallery_ids: Tensor,
                    chunk: int = 1024) -> Tensor:
    """Ranks by cosine in a full gallery, where equal ids are right answers.

    Args:
        queries: (Q, E) embeddings.
        gallery: (G, E) embeddings.
        query_ids: (Q,) integers.
        gallery_ids: (G,) integers; every query's id occurs among them.
        chunk: Queries scored at once; bounds memory, changes nothing.

    Returns:
        (Q,) int64, as :func:`ranks`.
    """
    parts = [ranks(cosines(q, gallery), ids[:, None] == gallery_ids)
             for q, ids in zip(queries.split(chunk), query_ids.split(chunk))]
    return torch.cat(parts)


def recall_at_k(rank: Tensor, k: int) -> float:
    """Share of queries with a right answer among the first k, in percent."""
    return 100 * float((rank <= k).double().mean())


def topk_accuracy(scores: Tensor, labels: Tensor, topk: Sequence[int] = (1, 3, 5)) -> dict[int, float]:
    """Micro-averaged accuracy in percent, by k; ties count against the true class.

    Args:
        scores: (N, C), higher is better.
        labels: (N,) int64, 0 to C - 1.
        topk: The ks, each at most C.
    """
    rank = label_ranks(scores, labels)
    return {k: recall_at_k(rank, k) for k in topk}


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """The rank of the true class of each object, (N, C) and (N,) to (N,) int64, ties pessimistic."""
    num_classes = scores.shape[-1]
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f'labels run from {int(labels.min())} to {int(labels.max())}, '
                         f'expected 0 to {num_classes - 1} for {num_classes} classes')
    return ranks(scores, torch.nn.functional.one_hot(labels, num_classes).bool())


def per_class_accuracy(correct: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Accuracy of each class in percent, NaN for classes without objects, (N,) bool and (N,) int64 to (C,) float64."""
    hits = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, correct.double())
    return 100 * hits / torch.bincount(labels, minlength=num_classes)


def teacher_zero_shot(views: Tensor, labels: Tensor, class_embeddings: Tensor,
                      topk: Sequence[int] = (1,)) -> dict[str, dict[int, float]]:
    """The teacher's own zero-shot accuracy on the views of objects, the yardstick of a student.

    Args:
        views: (N, V, E) image features of the objects' views.
        labels: (N,) int64.
        class_embeddings: (C, E) text features.

    Returns:
        ``single_view``: top-k over all N x V pictures, each classified alone; ``mean_view``: over the N objects,
        each by the mean of its unit view features. In percent, by k.
    """
    n, v, e = views.shape
    views = normalize(views.double(), dim=-1)
    return {'single_view': topk_accuracy(cosines(views.reshape(n * v, e), class_embeddings),
                                         labels.repeat_interleave(v), topk),
            'mean_view': topk_accuracy(cosines(views.mean(1), class_embeddings), labels, topk)}
