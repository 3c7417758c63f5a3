"""Teacher that the config of a model names: texts and images are embedded by it."""
from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.models import get_model_config
from clipgs_plugin.evaluation import prompts
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.models.teachers import OpenCLIPTeacher
from clipgs_plugin.registry import MODELS


def teacher_name(cfg: Config) -> str:
    """Return the name of a config's teacher, with its tag or the stem of its file; empty without a teacher."""
    teacher = cfg.get('teacher') or {}
    return '-'.join(filter(None, [str(teacher.get('model', '')), Path(teacher.get('pretrained') or '').stem]))


def builds_towers(cfg: Config) -> bool:
    """Check whether one tower of a config's teacher can be built alone."""
    kind = cfg.teacher['type']
    return (MODELS.get(kind) if isinstance(kind, str) else kind) is OpenCLIPTeacher


def build_teacher(cfg: Config, towers: str = 'both', device: str | torch.device = 'cpu') -> nn.Module:
    """Build the teacher of a config.

    Args:
        cfg: Config of a model, with ``teacher``.
        towers: ``'both'``, or ``'text'`` or ``'image'`` alone, for classes of teachers that can.
        device: Device of the teacher.
    """
    teacher = dict(cfg.teacher)
    if towers != 'both' and builds_towers(cfg):
        teacher.setdefault('towers', towers)
    return MODELS.build(teacher).to(device)


def embed_classes(model: str | PathLike, class_names: Sequence[str], templates: str | Sequence[str] = 'plain',
                  device: str | torch.device = 'cpu') -> ClassEmbeddings:
    """Embed class names for a model by its teacher alone; weights of the model are neither needed nor read.

    Args:
        model: Name for :func:`~clipgs_plugin.apis.get_model`, or path of a config.
        class_names: Names of the classes.
        templates: Name of a prompt set, or templates with ``{}``; embeddings are averaged over them.
        device: Device to compute on.

    Raises:
        ValueError: The config of the model names no teacher, or one with random weights.
        FileNotFoundError: The name is unknown, or the weights of the teacher are neither here nor downloadable.
    """
    cfg = get_model_config(model)
    if not cfg.get('teacher'):
        raise ValueError(f'the config of {model} names no teacher, which embeds the classes; add '
                         "teacher=dict(type='OpenCLIPTeacher', model=...) to it")
    teacher = build_teacher(cfg, 'text', device)
    if isinstance(teacher, OpenCLIPTeacher):
        teacher.require_weights()
    rows = prompts.class_embeddings(teacher, tuple(class_names), templates)
    return ClassEmbeddings(tuple(class_names), rows.cpu(), teacher_name(cfg))
