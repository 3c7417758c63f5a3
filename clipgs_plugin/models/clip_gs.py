"""CLIP-GS: a 3DGS encoder trained to match a frozen CLIP teacher."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from clipgs_plugin.models.pretrained import Pretrained
from clipgs_plugin.models.quiet_init import QuietInit
from clipgs_plugin.registry import MODELS
from clipgs_plugin.structures import GaussianBatch

MAX_LOG_SCALE = math.log(100)
TEXT_LOSS = {'type': 'clipgs_plugin.ContrastiveLoss'}
IMAGE_LOSS = {'type': 'clipgs_plugin.ImageVotingLoss'}
DATA_PREPROCESSOR = {'type': 'clipgs_plugin.GaussianDataPreprocessor'}
# Values of a data sample that a prediction keeps, for metrics and retrieval.
KEPT = ('uid', 'split', 'category', 'label', 'caption', 'caption_id', 'text', 'views')


@MODELS.register_module()
class CLIPGS(Pretrained, QuietInit, BaseModel):
    """Alignment of 3DGS objects with CLIP's embedding space (CLIP-GS, arXiv 2412.19142): L = L_text + L_img.

    The batch holds the teacher's features (``text`` and ``views``, cached by ``tools/cache_features.py``), or the
    input of a live teacher (``caption`` and ``view_pixels``). The teacher is frozen and outside the module tree. It
    follows ``to(device)``, but is not trained, initialised, wrapped or saved, and checkpoints load strictly with and
    without it.

    Args:
        encoder: Module or config that maps a :class:`GaussianBatch` to (B, E).
        teacher: Module or config with ``encode_text(list of str)`` and ``encode_image(pixels)`` to (n, E).
        text_loss: Module or config that maps (gaussians (B, E), text (B, E), scale) to a scalar, or None.
        image_loss: Module or config that maps (gaussians (B, E), views (B, K, E), text (B, E), scale) to a scalar, or
            None.
        init_logit_scale: Initial natural logarithm of the inverse temperature. It is learned and clamped to
            [0, ln 100]; the losses receive its exponential. Under FSDP2 the clamp acts on the unsharded copy of a step,
            so the stored parameter can leave the interval.
        data_preprocessor: Module or config.
        init_cfg: Initialisation config of mmengine.

    Raises:
        ValueError: Teacher and encoder have different ``embed_dim``.
    """

    def __init__(
        self,
        encoder: nn.Module | dict,
        teacher: nn.Module | dict | None = None,
        text_loss: nn.Module | dict | None = TEXT_LOSS,
        image_loss: nn.Module | dict | None = IMAGE_LOSS,
        init_logit_scale: float = math.log(1 / 0.07),
        data_preprocessor: nn.Module | dict | None = None,
        init_cfg: dict | list | None = None,
    ):
        super().__init__(build(data_preprocessor or DATA_PREPROCESSOR), init_cfg)
        self.encoder = build(encoder)
        self.text_loss = build(text_loss)
        self.image_loss = build(image_loss)
        self.logit_scale = nn.Parameter(torch.tensor([float(init_logit_scale)]))  # (1,): FSDP2 refuses scalars
        teacher = build(teacher)
        if teacher is not None:
            teacher.eval().requires_grad_(False)
            widths = getattr(teacher, 'embed_dim', None), getattr(self.encoder, 'embed_dim', None)
            if None not in widths and widths[0] != widths[1]:
                raise ValueError(f'the teacher {type(teacher).__name__} has features of width {widths[0]}, the '
                                 f'encoder embeddings of width {widths[1]}; set embed_dim={widths[0]} of the encoder')
            if getattr(self.encoder, 'teacher', '') is None:  # before its weights are loaded
                self.encoder.teacher = getattr(teacher, 'name', None)
        # nn.Module.__setattr__ would add it to the module tree.
        self.__dict__['teacher'] = teacher

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CLIPGS:
        if self.teacher is not None:
            self.teacher._apply(fn)
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        scale = state_dict.get(f'{prefix}logit_scale')
        if scale is not None and scale.ndim == 0:  # the form of older checkpoints
            state_dict[f'{prefix}logit_scale'] = scale[None]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f'teacher={type(self.teacher).__name__}'

    def forward(
        self,
        inputs: GaussianBatch,
        data_samples: dict | None = None,
        mode: str = 'tensor',
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Embed a batch of objects.

        Args:
            inputs: B objects.
            data_samples: Stacked values by name.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            ``'tensor'``: embeddings, (B, E), not normalised. ``'loss'``: a dict of ``loss_text``, ``loss_image`` and,
            for the log, ``logit_scale``. ``'predict'``: for each object a BaseDataElement with ``embedding``, (E,)
            unit, and those of uid, split, category, label, caption, caption_id, text and views that are in the batch.

        Raises:
            KeyError: The batch lacks the input of a loss.
            ValueError: Features and embeddings have different widths.
        """
        if mode == 'tensor':
            return self.encoder(inputs)
        if mode == 'loss':
            return self.loss(inputs, data_samples or {})
        if mode == 'predict':
            return self.predict(inputs, data_samples or {})
        raise RuntimeError(f'Invalid mode "{mode}".')

    def loss(self, inputs: GaussianBatch, data_samples: dict) -> dict[str, Tensor]:
        """Compute the weighted terms of the loss; see :meth:`forward`."""
        with torch.no_grad():  # not after the optimiser's step, since model wrappers replace train_step
            self.logit_scale.clamp_(0, MAX_LOG_SCALE)
        scale = self.logit_scale.exp().squeeze(0)
        gaussians = self.encoder(inputs)
        losses = {}
        if self.text_loss is not None or self.image_loss is not None:
            text = self._check_width(gaussians, self.text_features(data_samples), 'text')
        if self.text_loss is not None:
            options = {}
            if getattr(self.text_loss, 'collisions', 'keep') != 'keep':
                options['ids'] = _require(data_samples, 'caption_id', 'the ids of captions (B,); use a dataset with '
                                          'captions, or set collisions=\'keep\' of the loss')
            losses['loss_text'] = self.text_loss(gaussians, text, scale, **options)
        if self.image_loss is not None:
            views = self._check_width(gaussians, self.view_features(data_samples), 'views')
            losses['loss_image'] = self.image_loss(gaussians, views, text, scale)
        return {**losses, 'logit_scale': scale.detach()}

    def predict(self, inputs: GaussianBatch, data_samples: dict) -> list[BaseDataElement]:
        """Return one element for each object; see :meth:`forward`."""
        return predictions(self.encoder(inputs), data_samples)

    @torch.no_grad()
    def text_features(self, data_samples: dict) -> Tensor:
        """Return the teacher's features of the captions, (B, E), cached or from the live teacher."""
        if 'text' in data_samples:
            return data_samples['text']
        if self.teacher is None:
            _require(data_samples, 'text', 'the teacher\'s features of the captions (B, E); cache them with '
                     'tools/cache_features.py, or give CLIPGS a teacher, which computes them from \'caption\'')
        captions = _require(data_samples, 'caption', 'a list of str for the live teacher, and no cached features '
                            '\'text\'; let the dataset load captions, or run tools/cache_features.py')
        return self.teacher.encode_text(list(captions))

    @torch.no_grad()
    def view_features(self, data_samples: dict) -> Tensor:
        """Return the teacher's features of the views, (B, K, E), cached or from the live teacher."""
        if 'views' in data_samples:
            return data_samples['views']
        if self.teacher is None:
            _require(data_samples, 'views', 'the teacher\'s features of the views (B, K, E); cache them with '
                     'tools/cache_features.py, or give CLIPGS a teacher, which computes them from \'view_pixels\', '
                     'or set image_loss=None')
        pixels = _require(data_samples, 'view_pixels', 'images (B, K, 3, H, W) for the live teacher, and no cached '
                          'features \'views\'; let the dataset load images, or run tools/cache_features.py')
        return self.teacher.encode_image(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2])

    def _check_width(self, gaussians: Tensor, features: Tensor, key: str) -> Tensor:
        if features.shape[-1] != gaussians.shape[-1]:
            raise ValueError(f'{key!r} features of the teacher have width {features.shape[-1]}, embeddings of the '
                             f'encoder {gaussians.shape[-1]}; set embed_dim={features.shape[-1]} of the encoder, or '
                             'use the features of another teacher')
        return features.to(gaussians.device)


def predictions(embeddings: Tensor, data_samples: dict) -> list[BaseDataElement]:
    """Return the elements of mode ``'predict'`` for embeddings (B, E) of any length."""
    embeddings = F.normalize(embeddings.float(), dim=-1)
    kept = {key: data_samples[key] for key in KEPT if key in data_samples}
    return [BaseDataElement(embedding=embedding, **{key: value[i] for key, value in kept.items()})
            for i, embedding in enumerate(embeddings)]


def build(module: nn.Module | dict | None) -> nn.Module | None:
    """Build a module from its config; a module and None stay."""
    return MODELS.build(module) if isinstance(module, dict) else module


def _require(data_samples: dict, key: str, description: str):
    """Return the value of a key.

    Raises:
        KeyError: The key is missing; the message contains its description.
    """
    if key not in data_samples:
        raise KeyError(f'data_samples has no {key!r}, {description}. It has {sorted(data_samples) or "nothing"}')
    return data_samples[key]
