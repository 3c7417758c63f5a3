"""Metrics as pure functions of score tensors."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cosine of every row of a with every row of b, (N, E) and (M, E) to (N, M) float32.

    Sums are in float64 and rounded last, so that equal rows give equal scores.
    """
    return (normalize(a.double(), dim=-1) @ normalize(b.double(), dim=-1).T).float()


def ranks(scores: Tensor, positives: Tensor) -> Tensor:
    """Rank the best positive of each query, from 1.

    Ties are ranked pessimistically: a negative with the score of the best positive comes before it. Positives do not
    lower each other's rank.

    Args:
        scores: Scores of the gallery, (Q, G), higher is better.
        positives: Right answers, (Q, G) bool, at least one a query.

    Returns:
        (Q,) int64, 1 to G.

    Raises:
        ValueError: Shapes differ, a score is not finite, or a query has no positive.
    """
    check_scores(scores, positives)
    best = scores.masked_fill(~positives, -torch.inf).amax(-1, keepdim=True)
    return ((scores >= best) & ~positives).sum(-1) + 1


def check_scores(scores: Tensor, positives: Tensor) -> None:
    """Raise a ValueError unless scores, (Q, G), are finite and each query has a positive, (Q, G) bool."""
    if scores.shape != positives.shape:
        raise ValueError(f'scores {tuple(scores.shape)} and positives {tuple(positives.shape)} differ in shape')
    if not scores.isfinite().all():
        bad = int((~scores.isfinite()).any(-1).sum())
        raise ValueError(f'{bad} of {len(scores)} queries have scores that are not finite; an embedding holds NaN '
                         'or infinity')
    lonely = (~positives.any(-1)).nonzero()[:, 0]
    if len(lonely):
        raise ValueError(f'{len(lonely)} of {len(scores)} queries have no positive, the first is {int(lonely[0])}')


def recall_at_k(rank: Tensor, k: int) -> float:
    """Compute the share of queries with a right answer among the first k, in percent."""
    return 100 * float((rank <= k).double().mean())


def topk_accuracy(scores: Tensor, labels: Tensor, topk: Sequence[int] = (1, 3, 5)) -> dict[int, float]:
    """Compute micro-averaged accuracy in percent for each k; ties count against the true class.

    Args:
        scores: Scores of the classes, (N, C), higher is better.
        labels: True classes, (N,) int64, 0 to C - 1.
        topk: Values of k, each at most C.
    """
    rank = label_ranks(scores, labels)
    return {k: recall_at_k(rank, k) for k in topk}


def label_ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank the true class of each object, (N, C) and (N,) to (N,) int64; ties are pessimistic."""
    num_classes = scores.shape[-1]
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(f'labels run from {int(labels.min())} to {int(labels.max())}, '
                         f'expected 0 to {num_classes - 1} for {num_classes} classes')
    return ranks(scores, torch.nn.functional.one_hot(labels, num_classes).bool())


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """Count true classes by predicted ones, (N, C) and (N,) to (C, C) int64; rows are the truth.

    A tie counts against the true class, so the diagonal counts what :func:`topk_accuracy` counts for k = 1.
    """
    num_classes = scores.shape[-1]
    right = label_ranks(scores, labels) == 1
    wrong = scores.scatter(1, labels[:, None], -torch.inf).argmax(-1)
    return torch.bincount(labels * num_classes + torch.where(right, labels, wrong),
                          minlength=num_classes ** 2).view(num_classes, num_classes)


def per_class_accuracy(correct: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Compute the accuracy of each class in percent, (N,) and (N,) to (C,); NaN for classes without objects."""
    hits = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, correct.double())
    return 100 * hits / torch.bincount(labels, minlength=num_classes)


def teacher_zero_shot(views: Tensor, labels: Tensor, class_embeddings: Tensor,
                      topk: Sequence[int] = (1,)) -> dict[str, dict[int, float]]:
    """Compute the zero-shot accuracy of a teacher on the views of objects, the yardstick of a student.

    Args:
        views: Image features, (N, V, E).
        labels: True classes, (N,) int64.
        class_embeddings: Text features, (C, E).
        topk: Values of k.

    Returns:
        Accuracy in percent by k. ``single_view`` classifies each of the N x V views alone; ``mean_view`` classifies
        each object by the mean of its unit view features.
    """
    n, v, e = views.shape
    views = normalize(views.double(), dim=-1)
    return {'single_view': topk_accuracy(cosines(views.reshape(n * v, e), class_embeddings),
                                         labels.repeat_interleave(v), topk),
            'mean_view': topk_accuracy(cosines(views.mean(1), class_embeddings), labels, topk)}
