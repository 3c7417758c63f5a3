"""Zero-shot classification by class prompts."""
from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor, nn

from clipgs_plugin.evaluation import prompts
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.evaluation.confusion import ConfusionMatrix
from clipgs_plugin.evaluation.functional import confusion_matrix, cosines, label_ranks, recall_at_k
from clipgs_plugin.evaluation.one_tower import build_tower
from clipgs_plugin.evaluation.outcomes import Outcomes
from clipgs_plugin.registry import METRICS

UNLABELLED = -1


@METRICS.register_module()
class ZeroShotAccuracy(BaseMetric):
    """Top-k accuracy of embeddings against the prompts of the class names, micro-averaged over objects.

    Class embeddings are computed once a run, when the first evaluation ends. Only the text tower of the teacher is
    built, and it is freed after that. Objects
    without a class (label -1) are left out, and the log counts them once.

    Args:
        teacher: Teacher, or its config, whose text tower encodes the prompts.
        class_embeddings: Embeddings of the classes and more, or the path of their file, in place of a teacher.
        classes: Class names in the order of the labels; None takes ``metainfo['classes']`` of the dataset.
        templates: Prompts, see :func:`~clipgs_plugin.datasets.prompts.load_templates`.
        topk: Values of k; those above the number of classes are left out.
        per_class: Report ``top1/NAME`` for each class too.
        device: Device of a teacher that is given as a config.

    Reports ``zero_shot/top1`` and so on in percent, and ``zero_shot/mean_class_top1``, the mean over classes with
    objects. Ties count against the true class.
    """

    default_prefix = 'zero_shot'

    def __init__(self, teacher: dict | nn.Module | None = None,
                 class_embeddings: ClassEmbeddings | str | Path | None = None, classes: Sequence[str] | None = None,
                 templates: str | Sequence[str] = 'plain', topk: Sequence[int] = (1, 3, 5), per_class: bool = False,
                 device: str = 'cpu', collect_device: str = 'cpu', prefix: str | None = None,
                 collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if (teacher is None) == (class_embeddings is None):
            raise ValueError('ZeroShotAccuracy needs either teacher=dict(type=\'OpenCLIPTeacher\', ...) or '
                             f'class_embeddings=FILE.npz, got {"neither" if teacher is None else "both"}')
        self.teacher = teacher
        self.class_embeddings = class_embeddings
        self.classes = classes
        self.templates = templates
        self.topk = tuple(topk)
        self.per_class = per_class
        self.device = device
        self._embeddings: Tensor | None = None
        self._counted = False
        # Of the last evaluation, in the main process.
        self.confusion: ConfusionMatrix | None = None
        self.outcomes: dict[str, Outcomes] = {}

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            label = sample.get('label')
            if label is None:
                raise ValueError(f'object {sample.get("uid")!r} has no label, which ZeroShotAccuracy needs; evaluate a '
                                 'dataset with classes, or remove this metric')
            self.results.append((sample.get('embedding').detach().float().cpu(), int(label), sample.get('uid')))

    def compute_metrics(self, results: list) -> dict[str, float]:
        results = self._labelled(results)
        embeddings = torch.stack([embedding for embedding, *_ in results])
        labels = torch.tensor([label for _, label, _ in results])
        classes = self._class_names()
        if self._embeddings is None:
            self._embeddings = self._encode(classes)
        if embeddings.shape[-1] != self._embeddings.shape[-1]:
            raise ValueError(f'objects have embeddings of width {embeddings.shape[-1]}, the classes '
                             f'{self._embeddings.shape[-1]}; model and metric use different teachers')
        scores = cosines(embeddings, self._embeddings)
        rank = label_ranks(scores, labels)
        metrics = {f'top{k}': recall_at_k(rank, k) for k in self.topk if k <= len(classes)}
        self.outcomes = {'top1': Outcomes(tuple(uid for *_, uid in results), rank <= 1)}
        self.confusion = ConfusionMatrix(tuple(classes), confusion_matrix(scores, labels))
        each = {name: value for name, value in self.confusion.accuracies.items() if value is not None}
        metrics['mean_class_top1'] = sum(each.values()) / len(each)
        if self.per_class:
            metrics.update({f'top1/{name}': value for name, value in each.items()})
        return metrics

    def _labelled(self, results: list) -> list:
        """Return the results of objects that have a class; here, since every process must collect equally many."""
        labelled = [result for result in results if result[1] != UNLABELLED]
        if not labelled:
            raise ValueError(f'none of the {len(results)} objects has a class, so that no accuracy is defined; '
                             'evaluate a dataset with classes, or remove ZeroShotAccuracy from the evaluator')
        if len(labelled) < len(results) and not self._counted:
            print_log(f'ZeroShotAccuracy leaves out {len(results) - len(labelled)} of {len(results)} objects, which '
                      'have no class', logger='current', level=logging.WARNING)
            self._counted = True
        return labelled

    def _class_names(self) -> list[str]:
        classes = self.classes or (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError("the dataset has no metainfo['classes']; name them with ZeroShotAccuracy(classes=[...])")
        return list(classes)

    def _encode(self, classes: list[str]) -> Tensor:
        if self.class_embeddings is not None:
            return self._stored().select(classes).embeddings
        teacher, self.teacher = self.teacher, None
        return prompts.class_embeddings(build_tower(teacher, 'text', self.device), classes, self.templates)

    def _stored(self) -> ClassEmbeddings:
        stored = self.class_embeddings
        return stored if isinstance(stored, ClassEmbeddings) else ClassEmbeddings.load(stored)
