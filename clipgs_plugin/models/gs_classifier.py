"""Supervised classification of 3DGS objects with any encoder."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from clipgs_plugin.models.clip_gs import DATA_PREPROCESSOR, build
from clipgs_plugin.models.mmpretrain_heads import build_head, has_own_loss, head_loss, head_scores
from clipgs_plugin.models.pretrained import Pretrained
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch

HEAD = {'type': 'clipgs_plugin.ClassifierHead'}
FEATURES = ('pooled', 'embedding')
# Values of a data sample that a prediction keeps, for metrics and files of predictions.
KEPT = ('uid', 'category', 'label')


@MODELS.register_module()
class GSClassifier(Pretrained, QuietInit, BaseModel):
    r"""Encoder with a classification head, trained with cross-entropy (the fine-tuning of Point-BERT, CVPR 2022).

    What is trained follows from the encoder's ``frozen`` and ``lora``; see :class:`GSEncoder`.

    Args:
        encoder: :class:`GSEncoder` or its config. Its ``init_cfg`` names the weights to start from:
            ``PointCloudPretrained`` for a published model, ``CLIPGSPretrained`` for one that was trained here.
        num_classes: Number of classes.
        head: Module that maps (B, D) to (B, num_classes), or its config without ``in_features`` and ``num_classes``.
            The default type is :class:`ClassifierHead`. A head of mmpretrain, such as
            ``dict(type='mmpretrain.LinearClsHead')``, computes losses and scores itself.
        feature: Input of the head. ``'pooled'`` is the backbone's feature (class token and maximum in Point-BERT); the
            encoder's projection is then replaced by the identity. ``'embedding'`` is the encoder's embedding.
        label_smoothing: :math:`\epsilon`; the target is :math:`1 - \epsilon` for the true class and
            :math:`\epsilon / (C - 1)` for each other one, as in Point-BERT's code, where it is 0.2.
        data_preprocessor: Module or config.
        init_cfg: Initialisation config of mmengine.
        classes: Names of the classes in the order of their labels. A checkpoint of a training has them too, and
            :meth:`save_pretrained` needs them.

    Raises:
        ValueError: ``num_classes``, ``feature`` or ``label_smoothing`` is out of range, ``classes`` are not
            ``num_classes`` different names, or ``label_smoothing`` is given for a head with a loss of its own.
    """

    def __init__(
        self,
        encoder: nn.Module | dict,
        num_classes: int,
        head: nn.Module | dict | None = None,
        feature: str = 'pooled',
        label_smoothing: float = 0.0,
        data_preprocessor: nn.Module | dict | None = None,
        init_cfg: dict | list | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(build(data_preprocessor or DATA_PREPROCESSOR), init_cfg)
        if num_classes < 2:
            raise ValueError(f'num_classes={num_classes}: expected at least 2')
        if feature not in FEATURES:
            raise ValueError(f'feature={feature!r}: expected one of {FEATURES}')
        if not 0 <= label_smoothing <= 1 - 1 / num_classes:
            raise ValueError(f'label_smoothing={label_smoothing}: expected 0 to {1 - 1 / num_classes:g}, at which all '
                             f'{num_classes} classes have the same target')
        self.encoder = build(encoder)
        if feature == 'pooled':  # before weights are loaded, so that none for a projection are looked for
            self.encoder.projection = nn.Identity()
            self.encoder.embed_dim = self.encoder.backbone.out_channels
        self.num_classes = num_classes
        self.classes = classes
        self.label_smoothing = label_smoothing
        if head is None or isinstance(head, dict):
            head = build_head({**HEAD, **(head or {})}, self.encoder.embed_dim, num_classes)
        self.head = head
        if label_smoothing and has_own_loss(head):
            raise ValueError(f'label_smoothing={label_smoothing} has no effect on the loss of a {type(head).__name__}; '
                             "leave it out, and set head=dict(loss=dict(type='LabelSmoothLoss', label_smooth_val=...))")

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes in the order of their labels, or None."""
        return self._classes

    @classes.setter
    def classes(self, names: Sequence[str] | None) -> None:
        if names is not None and not len(set(names)) == len(names) == self.num_classes:
            raise ValueError(f'classes={list(names)[:20]}: expected {self.num_classes} different names')
        self._classes = None if names is None else tuple(names)

    def forward(
        self,
        inputs: GaussianBatch,
        data_samples: dict | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Classify a batch of objects.

        Args:
            inputs: B objects.
            data_samples: Stacked values by name.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            ``'tensor'``: logits, (B, C). ``'loss'``: a dict of ``loss_cls`` and, for the log, ``accuracy`` of the batch
            in percent, or what a head of mmpretrain returns. ``'predict'``: for each object a BaseDataElement with
            ``pred_label`` (int), ``scores`` (C,), the probabilities, ``pred_class`` (str) if the classes have names,
            and those of uid, category and label that are in the batch.

        Raises:
            KeyError: The batch has no labels to train on.
            ValueError: A label is not a class.
        """
        if mode not in ('tensor', 'loss', 'predict'):
            raise RuntimeError(f'Invalid mode "{mode}".')
        features, samples, own_loss = self.encoder(inputs), data_samples or {}, has_own_loss(self.head)
        if own_loss and mode == 'loss':
            return head_loss(self.head, features, self.labels(samples).to(features.device))
        if own_loss and mode == 'predict':
            return self.elements(head_scores(self.head, features), samples)
        logits = self.head((features,) if own_loss else features)
        if mode == 'tensor':
            return logits
        return self.loss(logits, samples) if mode == 'loss' else self.predict(logits, samples)

    def labels(self, data_samples: dict) -> Tensor:
        """Return the labels of a batch, (B,), checked; see :meth:`forward`."""
        if 'label' not in data_samples:
            raise KeyError(f'data_samples has no \'label\', the classes (B,); it has {sorted(data_samples)}. Use a '
                           'dataset with classes')
        labels = data_samples['label']
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise ValueError(f'labels run from {int(labels.min())} to {int(labels.max())}, expected 0 to '
                             f'{self.num_classes - 1}; set num_classes, or leave out objects without a class')
        return labels

    def loss(self, logits: Tensor, data_samples: dict) -> dict[str, Tensor]:
        """Compute the cross-entropy of logits (B, C); see :meth:`forward`."""
        labels = self.labels(data_samples).to(logits.device)
        # torch spreads the share over all classes, the true one included.
        smoothing = self.label_smoothing * self.num_classes / (self.num_classes - 1)
        accuracy = 100 * (logits.detach().argmax(-1) == labels).float().mean()
        return {'loss_cls': F.cross_entropy(logits.float(), labels, label_smoothing=smoothing), 'accuracy': accuracy}

    def predict(self, logits: Tensor, data_samples: dict) -> list[BaseDataElement]:
        """Return one element for each object of logits (B, C); see :meth:`forward`."""
        return self.elements(logits.float().softmax(-1), data_samples)

    def elements(self, scores: Tensor, data_samples: dict) -> list[BaseDataElement]:
        """Return one element for each object of scores (B, C); see :meth:`forward`."""
        kept = {key: data_samples[key] for key in KEPT if key in data_samples}
        elements = [BaseDataElement(pred_label=int(row.argmax()), scores=row,
                                    **{key: value[i] for key, value in kept.items()}) for i, row in enumerate(scores)]
        if self.classes is not None:
            for element in elements:
                element.pred_class = self.classes[element.pred_label]
        return elements
