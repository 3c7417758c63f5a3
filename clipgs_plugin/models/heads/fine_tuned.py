"""Fine-tuning: an encoder that learns from the objects of a task."""
from __future__ import annotations

import copy
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from clipgs_plugin.models.gs_classifier import FEATURES, GSClassifier
from clipgs_plugin.models.gs_encoder import GSEncoder
from clipgs_plugin.models.heads.base import FewShotHead, count_classes, unit
from clipgs_plugin.models.heads.training import train_epochs
from clipgs_plugin.registry import MODELS, TRANSFORMS
from clipgs_plugin.structures import GaussianBatch, GaussianCloud

SCALING = {'type': 'clipgs_plugin.ScaleGaussians', 'low': 2 / 3, 'high': 3 / 2}  # of configs/finetune
PROBE = {'type': 'clipgs_plugin.LinearProbe'}


@MODELS.register_module()
class FineTuned(FewShotHead):
    """Fine-tuning of an encoder and a classifier on the support of a task: all of the encoder, low-rank updates, or
    prompts.

    Every fit tunes a copy of the encoder as a :class:`~clipgs_plugin.models.GSClassifier`. The default classifier
    is a linear probe that is fitted to the untouched encoder and then trained with it (Kumar et al., "Fine-Tuning can
    Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022). Without epochs, the head is that
    probe. Point-BERT's few-shot protocol tunes everything below a new classifier:
    ``FineTuned(head=dict(type='ClassifierHead'), feature='pooled', epochs=150)``.

    The recipe is that of the configs of fine-tuning with fewer epochs: AdamW with a cosine schedule, the first epoch at
    a tenth of the rate, no decay of biases and norms, clipped gradients, label smoothing, objects scaled at random. The
    last epoch is taken. Random numbers depend on ``seed`` and on the support alone.

    Args:
        frozen, lora: Parts of the encoder that are not trained, and low-rank updates; see :class:`GSEncoder`.
        num_prompts: Number of learned tokens beside the patches.
        head: Config of the classifier. A head on features, such as :class:`LinearProbe` or :class:`ZeroShotHead`, is
            fitted first, and its parameters are trained on; any other is one of ``GSClassifier``, and new.
        feature: Input of the classifier. ``'embedding'`` is what heads on features see. ``'pooled'`` is the feature of
            the backbone, before the projection.
        epochs: Number of epochs.
        lr: Learning rate.
        batch_size: Number of objects of a step.
        weight_decay: Decay of AdamW.
        label_smoothing: See :class:`~clipgs_plugin.models.GSClassifier`.
        augmentation: Configs of transforms of the prepared objects, in training.
        seed: Random seed.
        encoder: Encoder to start from, which is not changed; ``tools/few_shot.py`` gives that of its model to
            :meth:`start_from`.

    Shapes:
        - objects of :meth:`fit`: list of n prepared clouds, labels (n,) int64, class_embeddings (C, D)
        - input: list of m prepared clouds
        - output: logits (m, C), on the CPU

    Raises:
        ValueError: A setting is out of range, ``head`` takes objects, or there is nothing to train.
    """

    takes = 'objects'
    leak = 'the epoch'

    def __init__(self, frozen: Sequence[str] = (), lora: Mapping | None = None, num_prompts: int = 0,
                 head: Mapping = PROBE, feature: str = 'embedding', epochs: int = 30, lr: float = 5e-4,
                 batch_size: int = 32, weight_decay: float = 0.05, label_smoothing: float = 0.2,
                 augmentation: Sequence[Mapping] = (SCALING,), seed: int = 0,
                 encoder: GSEncoder | None = None) -> None:
        super().__init__()
        if epochs < 0 or batch_size < 1 or lr <= 0 or feature not in FEATURES:
            raise ValueError(f'epochs={epochs}, batch_size={batch_size}, lr={lr}, feature={feature!r}: expected at '
                             f'least 0, at least 1, more than 0, and one of {FEATURES}')
        self.tuning = dict(frozen=frozen, lora=lora, num_prompts=num_prompts)
        self.feature, self.label_smoothing = feature, label_smoothing
        self.epochs, self.lr, self.batch_size, self.weight_decay = epochs, lr, batch_size, weight_decay
        self.augmentation = [TRANSFORMS.build(dict(step)) for step in augmentation]
        self.seed = seed
        self.head = dict(head)
        kind = MODELS.get(self.head['type']) if isinstance(self.head['type'], str) else self.head['type']
        self.fitted = MODELS.build(self.head) if isinstance(kind, type) and issubclass(kind, FewShotHead) else None
        if self.fitted is not None:
            if self.fitted.takes != 'features':
                raise ValueError(f'head={self.head["type"]!r} takes {self.fitted.takes}; name one that takes features, '
                                 'such as LinearProbe')
            self.needs_text = self.fitted.needs_text
        self._encoder: tuple[GSEncoder] | None = None
        if encoder is not None:
            self.start_from(encoder)

    def start_from(self, encoder: nn.Module) -> FineTuned:
        """Take an encoder whose copies are tuned; return the head itself.

        Raises:
            ValueError: It is no :class:`GSEncoder`, or cannot be tuned so.
        """
        if not isinstance(encoder, GSEncoder):
            raise ValueError(f'{type(self).__name__} tunes a GSEncoder, got a {type(encoder).__name__}; name a model '
                             'with an encoder of Gaussians')
        with _seeded(self.seed, torch.device('cpu')):
            copy.deepcopy(encoder).set_trained(**self.tuning)  # wrong settings are found here, not after an hour
        self._encoder = (encoder,)  # in a tuple, so that it is no submodule and keeps its mode
        return self

    @property
    def encoder(self) -> GSEncoder:
        """Encoder whose copies are tuned."""
        if self._encoder is None:
            raise ValueError(f'{type(self).__name__} has no encoder to tune; give it one, '
                             'start_from(get_model(NAME).encoder)')
        return self._encoder[0]

    def checked(self, features: Sequence[GaussianCloud], labels: Tensor, class_embeddings: Tensor | None
                ) -> tuple[list[GaussianCloud], Tensor, Tensor | None]:
        name, objects = type(self).__name__, list(features)
        clouds = all(isinstance(each, GaussianCloud) for each in objects)
        if not objects or not clouds or labels.shape != (len(objects),):
            raise ValueError(f'{name}: expected a list of n prepared GaussianClouds and labels (n,) with n of at least '
                             f'1, got {len(objects)} of {type(features).__name__} and labels {tuple(labels.shape)}')
        count_classes(name, labels, class_embeddings)
        return objects, labels.long(), class_embeddings

    def training_states(self, features: list[GaussianCloud], labels: Tensor, class_embeddings: Tensor | None
                        ) -> Iterator[None]:
        objects, seed, device = features, _seed_of(features, self.seed), next(self.encoder.parameters()).device
        with _seeded(seed, device):
            self.model = self._start(objects, labels, class_embeddings).to(device)
        steps = itertools.count(1)

        def loss(rows: Tensor) -> Tensor:
            step = next(steps)
            rows = rows.repeat(2) if len(rows) == 1 else rows  # a support of one, for batch norms
            batch = self._batch([self._augmented(objects[row], (seed, step, i)) for i, row in enumerate(rows)])
            with _seeded(seed + step, device):
                losses = self.model.train()(batch, dict(label=labels[rows]), 'loss')
            return self.model.parse_losses(losses)[0]

        trained = [each for each in self.model.parameters() if each.requires_grad]
        if not trained:
            raise ValueError(f'nothing is left to train with frozen={self.tuning["frozen"]} and '
                             f'head={self.head["type"]!r}; freeze fewer parts, or add lora or num_prompts')
        decay = {flag: [each for each in trained if (each.ndim > 1) == flag] for flag in (True, False)}
        groups = [dict(params=decay[True]), dict(params=decay[False], weight_decay=0.0)]
        optimizer = dict(type='AdamW', lr=self.lr, weight_decay=self.weight_decay)
        yield from train_epochs([group for group in groups if group['params']], loss, len(labels), optimizer,
                                self.epochs, self.batch_size, seed, warmup_lr=self.lr / 10, max_norm=10.0)

    def _start(self, objects: list[GaussianCloud], labels: Tensor, class_embeddings: Tensor | None) -> GSClassifier:
        """Build the classifier before its first step."""
        encoder = copy.deepcopy(self.encoder).set_trained(**self.tuning)
        classes = max(count_classes(type(self).__name__, labels, class_embeddings), 2)
        head = self.head if self.fitted is None else _OnUnitVectors(copy.deepcopy(self.fitted))
        model = GSClassifier(encoder, classes, head, self.feature, self.label_smoothing)
        if self.fitted is not None:
            model.head.classifier.fit(unit(self._apply(model.encoder.eval(), objects)), labels, class_embeddings)
        return model

    def _augmented(self, cloud: GaussianCloud, seed: tuple[int, ...]) -> GaussianCloud:
        results = dict(gaussians=cloud, rng=np.random.default_rng(seed))
        for step in self.augmentation:
            results = step(results)
        return results['gaussians']

    def _batch(self, objects: Sequence[GaussianCloud]) -> GaussianBatch:
        return GaussianBatch.from_clouds(objects).to(next(self.encoder.parameters()).device)

    @torch.no_grad()
    def _apply(self, model: nn.Module, objects: Sequence[GaussianCloud], batch_size: int = 64) -> Tensor:
        return torch.cat([model(self._batch(objects[start:start + batch_size])).float().cpu()
                          for start in range(0, len(objects), batch_size)])

    def forward(self, features: Sequence[GaussianCloud]) -> Tensor:
        return self._apply(self.model.eval(), features)


class _OnUnitVectors(nn.Module):
    """Few-shot head on features of any length; it was fitted to unit vectors."""

    def __init__(self, classifier: FewShotHead) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        return self.classifier(unit(features))


def _seed_of(objects: Sequence[GaussianCloud], seed: int) -> int:
    """Mix a seed with the positions of objects, so that tasks have random numbers of their own."""
    for cloud in objects:
        seed = zlib.crc32(np.ascontiguousarray(cloud.means.cpu().numpy()).tobytes(), seed)
    return seed


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch within the context, and put the caller's state back."""
    with torch.random.fork_rng([device] if device.type == 'cuda' else []):
        torch.manual_seed(seed)
        yield
