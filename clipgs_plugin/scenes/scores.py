"""Scores of objects for texts."""
from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from clipgs_plugin.evaluation import ClassEmbeddings


@dataclass(frozen=True, eq=False)
class TextScores:
    """Scores of objects for texts: probabilities of several classes, or cosines to a single text.

    Attributes:
        names: The texts.
        scores: Scores, (M, C).
        kind: ``'probability'`` or ``'cosine'``.
    """

    names: tuple[str, ...]
    scores: Tensor
    kind: str

    @classmethod
    def of(cls, embeddings: Tensor, texts: ClassEmbeddings, scale: float) -> TextScores:
        """Score objects for texts.

        Args:
            embeddings: Unit vectors of the objects, (M, E).
            texts: Embeddings of the texts; among a single one, every probability would be 1.
            scale: Scale of the cosines, ``model.logit_scale.exp()``.
        """
        if len(texts) == 1:
            return cls(texts.names, embeddings @ texts.embeddings.T, 'cosine')
        return cls(texts.names, class_probabilities(embeddings, texts.embeddings, scale), 'probability')

    def best(self, number: int) -> tuple[str, float]:
        """Return the text of the best score of an object, and the score."""
        score, place = self.scores[number].max(0)
        return self.names[int(place)], float(score)


def class_probabilities(embeddings: Tensor, classes: Tensor, scale: float) -> Tensor:
    """Compute the probability of each class for each object, (M, C): the softmax of scaled cosines.

    Args:
        embeddings: Unit vectors of the objects, (M, E).
        classes: Unit vectors of the classes, (C, E).
        scale: Scale of the cosines, ``model.logit_scale.exp()``.
    """
    return (scale * embeddings @ classes.T).softmax(-1)
