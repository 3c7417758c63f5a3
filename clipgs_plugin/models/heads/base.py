"""Base class of few-shot heads."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class FewShotHead(nn.Module, ABC):
    """Base class of classifiers that learn from a few labelled features of a frozen encoder.

    A head sees tensors alone, unless it takes objects: such a head tunes an encoder, and a list of n prepared
    :class:`GaussianCloud` stands wherever features do. The defaults are fixed, so nothing is chosen on a validation or
    test set. Two fits on equal arguments give equal heads. The number of classes C is that of the class embeddings, or
    the highest label plus one without them; classes may be absent from the support.

    Attributes:
        takes: ``'features'``, or ``'objects'`` for heads that tune an encoder, see :class:`FineTuned`.
        needs_text: True for heads that start from class embeddings.
        leak: Description of what the literature chooses by the accuracy on the test set; empty if nothing.

    Shapes:
        - features of :meth:`fit`: (n, D), labels (n,) int64 of 0 to C - 1, class_embeddings (C, D)
        - input: (m, D)
        - output: logits (m, C)
    """

    takes = 'features'
    needs_text = False
    leak = ''

    def fit(
        self,
        features: Tensor,                        # (n, D)
        labels: Tensor,                          # (n,) int64
        class_embeddings: Tensor | None = None,  # (C, D)
    ) -> FewShotHead:
        """Learn from labelled features; return the head itself.

        Raises:
            ValueError: Shapes do not fit, a label is out of range, or class embeddings are needed and absent.
        """
        for _ in self.training_states(*self.checked(features, labels, class_embeddings)):
            pass
        return self.eval()

    @abstractmethod
    def training_states(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None) -> Iterator[None]:
        """Learn; yield after each epoch, or once for heads without epochs."""

    @torch.no_grad()
    def best_score(
        self,
        features: Tensor,
        labels: Tensor,
        class_embeddings: Tensor | None,
        queries: Tensor,                   # (m, D)
        score: Callable[[Tensor], float],  # logits (m, C) -> accuracy
    ) -> float:
        """Return the best score on the queries over all settings that the literature compares there, see :attr:`leak`.

        The result is optimistic, and only comparable with results of the same choice. Heads without a choice return
        the score of :meth:`fit`.
        """
        if not self.leak:
            return score(self.fit(features, labels, class_embeddings)(queries))
        return max(score(self(queries))
                   for _ in self.training_states(*self.checked(features, labels, class_embeddings)))

    def checked(self, features: Tensor, labels: Tensor, class_embeddings: Tensor | None
                ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the arguments of :meth:`fit` as float32 or float64 and int64, after a check of shapes and labels."""
        name = type(self).__name__
        if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
            raise ValueError(f'{name}: features {tuple(features.shape)} and labels {tuple(labels.shape)} do not fit, '
                             'expected (n, D) and (n,) with n of at least 1')
        if class_embeddings is None and self.needs_text:
            raise ValueError(f'{name} starts from class embeddings, and none are given; encode the class names with '
                             'the teacher, or choose LinearProbe or PrototypeHead')
        if class_embeddings is not None and class_embeddings.shape[1:] != features.shape[1:]:
            raise ValueError(f'{name}: class embeddings {tuple(class_embeddings.shape)} for features of width '
                             f'{features.shape[1]}; encode the class names with the teacher of the features')
        count_classes(name, labels, class_embeddings)
        text = None if class_embeddings is None else class_embeddings.float()
        return features.to(torch.promote_types(features.dtype, torch.float32)), labels.long(), text


def count_classes(name: str, labels: Tensor, class_embeddings: Tensor | None) -> int:
    """Return the number of classes C of a task; a label beyond it is an error that names the head."""
    classes = int(labels.max()) + 1 if class_embeddings is None else len(class_embeddings)
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f'{name}: labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to '
                         f'{classes - 1}')
    return classes


def unit(rows: Tensor) -> Tensor:
    """Normalise rows to length 1."""
    return normalize(rows, dim=-1)
