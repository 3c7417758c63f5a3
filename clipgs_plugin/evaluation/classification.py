"""Accuracy and confusion matrix of a classifier."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric

from clipgs_plugin.evaluation.confusion import ConfusionMatrix
from clipgs_plugin.evaluation.functional import confusion_matrix, label_ranks, per_class_accuracy, recall_at_k
from clipgs_plugin.evaluation.outcomes import Outcomes
from clipgs_plugin.registry import METRICS


@METRICS.register_module()
class ClassificationAccuracy(BaseMetric):
    """Accuracy of the ``scores`` of a :class:`~clipgs_plugin.models.GSClassifier`.

    It is computed from the scores of all objects at once, so that an incomplete last batch weighs as its objects do.
    Ties count against the true class.

    Reports ``accuracy/top1``, ``accuracy/mean_class_top1`` (the mean over classes with objects) and ``accuracy/top5``
    in percent. After an evaluation, ``confusion`` is its :class:`ConfusionMatrix` on the main process.

    Args:
        topk: Values of k; those above the number of classes are left out.
        classes: Class names in the order of the labels; None takes ``metainfo['classes']`` of the dataset.
        per_class: Report ``top1/NAME`` for each class too.
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), classes: Sequence[str] | None = None, per_class: bool = False,
                 collect_device: str = 'cpu', prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.topk = tuple(topk)
        self.classes = classes
        self.per_class = per_class
        self.confusion: ConfusionMatrix | None = None
        self.outcomes: dict[str, Outcomes] = {}

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if sample.get('label') is None or int(sample['label']) < 0:
                raise ValueError(f'object {sample.get("uid")!r} has no class, which ClassificationAccuracy needs; '
                                 'evaluate a dataset whose objects all have one')
            self.results.append((sample['scores'].detach().float().cpu(), int(sample['label']), sample.get('uid')))

    def compute_metrics(self, results: list) -> dict[str, float]:
        scores = torch.stack([score for score, *_ in results])
        labels = torch.tensor([label for _, label, _ in results])
        classes = self._class_names(scores.shape[-1])
        rank = label_ranks(scores, labels)
        metrics = {f'top{k}': recall_at_k(rank, k) for k in self.topk if k <= len(classes)}
        each = per_class_accuracy(rank == 1, labels, len(classes))
        metrics['mean_class_top1'] = float(each[~each.isnan()].mean())
        if self.per_class:
            metrics.update({f'top1/{name}': float(value) for name, value in zip(classes, each) if not value.isnan()})
        self.outcomes = {'top1': Outcomes(tuple(uid for *_, uid in results), rank <= 1)}
        self.confusion = ConfusionMatrix(classes, confusion_matrix(scores, labels))
        return metrics

    def _class_names(self, count: int) -> tuple[str, ...]:
        classes = self.classes or (self.dataset_meta or {}).get('classes')
        if classes is None:
            return tuple(str(i) for i in range(count))
        if len(classes) != count:
            raise ValueError(f'the model has {count} classes, the dataset {len(classes)}; set num_classes='
                             f'{len(classes)} of the model')
        return tuple(classes)
