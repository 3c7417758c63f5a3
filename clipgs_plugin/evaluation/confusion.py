"""Counts of true and predicted classes."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConfusionMatrix:
    """Names of classes, and counts of objects by their true and predicted class.

    Raises:
        ValueError: The counts have another shape.
    """

    classes: tuple[str, ...]
    counts: Tensor  # (C, C) int64, rows are the truth

    def __post_init__(self) -> None:
        if self.counts.shape != (len(self.classes), len(self.classes)):
            raise ValueError(f'counts of shape {tuple(self.counts.shape)} for {len(self.classes)} classes, expected '
                             'one row and one column a class')

    @property
    def objects(self) -> dict[str, int]:
        """Number of objects of each class."""
        return dict(zip(self.classes, self.counts.sum(1).tolist()))

    @property
    def accuracies(self) -> dict[str, float | None]:
        """Accuracy of each class in percent, None for a class without objects."""
        right = self.counts.diagonal().tolist()
        return {name: _percent(hits, total) for hits, (name, total) in zip(right, self.objects.items())}

    def report(self) -> list[dict]:
        """Return name, number of objects, and recall and precision in percent of each class; None where undefined."""
        columns = self.counts.diagonal().tolist(), self.counts.sum(1).tolist(), self.counts.sum(0).tolist()
        return [dict(name=name, objects=objects, recall=_percent(hits, objects), precision=_percent(hits, predicted))
                for name, hits, objects, predicted in zip(self.classes, *columns)]

    def confusions(self, limit: int) -> list[tuple[str, str, int]]:
        """List the most frequent errors as true class, predicted class and count, in the order of classes if equal."""
        errors = self.counts.clone().fill_diagonal_(0)
        order = errors.flatten().argsort(descending=True, stable=True)[:limit].tolist()
        places = [divmod(place, len(self.classes)) for place in order]
        return [(self.classes[row], self.classes[column], int(errors[row, column])) for row, column in places
                if errors[row, column]]

    def to_json(self) -> dict:
        """Return the classes and the entries that are not zero, as ``[true, predicted, count]``."""
        places = self.counts.nonzero()
        return {'classes': list(self.classes), 'accuracies': self.accuracies,
                'counts': [[*place, int(self.counts[tuple(place)])] for place in places.tolist()]}

    @classmethod
    def from_json(cls, content: dict) -> ConfusionMatrix:
        """Read what :meth:`to_json` returns, with the types checked.

        Raises:
            ValueError: An entry is of another class, or negative.
        """
        size = len(content['classes'])
        counts = torch.zeros(size, size, dtype=torch.int64)
        for row, column, count in content['counts']:
            if not (0 <= row < size and 0 <= column < size and 0 <= count < 2 ** 53):
                raise ValueError(f'the entry {row}, {column}, {count} of the confusion matrix is not a count of two of '
                                 f'{size} classes')
            counts[row, column] = count
        return cls(tuple(content['classes']), counts)


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
