"""Heads with the interface of mmpretrain, which compute losses and predictions themselves.

mmpretrain is not imported: a head takes a tuple of features and data samples with ``gt_label``, and returns elements
with ``pred_score``, all of which mmengine has.
"""
from __future__ import annotations

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from clipgs_plugin.registry import MODELS


def has_own_loss(head: nn.Module | type) -> bool:
    """Return True for a head, or a class of heads, with the methods ``loss`` and ``predict`` of mmpretrain's."""
    return all(callable(getattr(head, name, None)) for name in ('loss', 'predict'))


def build_head(cfg: dict, in_features: int, num_classes: int) -> nn.Module:
    """Build a classification head, whose input width is ``in_channels`` in mmpretrain and ``in_features`` here.

    A type with a scope is built in that scope, so that its own parts are found there: the loss of
    ``dict(type='mmpretrain.LinearClsHead', loss=dict(type='LabelSmoothLoss', label_smooth_val=0.2))`` is mmpretrain's.

    Raises:
        KeyError: The type is unknown, or the package of its scope is not installed.
    """
    kind = cfg['type']
    scope, _, name = kind.rpartition('.') if isinstance(kind, str) else ('', '', '')
    head = MODELS.get(kind) if name else kind
    if head is None:
        raise KeyError(f'head={kind!r} is not registered; install {scope or "its package"}, or import the module that '
                       'registers it with custom_imports')
    width = 'in_channels' if has_own_loss(head) else 'in_features'
    return MODELS.build({**({'_scope_': scope} if scope else {}), **cfg, width: in_features,
                         'num_classes': num_classes})


def head_loss(head: nn.Module, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the losses of a head for features (B, D) and labels (B,)."""
    return head.loss((features,), [BaseDataElement(gt_label=label[None]) for label in labels])


def head_scores(head: nn.Module, features: Tensor) -> Tensor:
    """Return the scores of the classes that a head predicts, (B, C)."""
    return torch.stack([sample.pred_score for sample in head.predict((features,))])
