"""Class embeddings from class names and prompt templates."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.datasets.prompts import fill, load_templates


def class_embeddings(teacher, classes: Sequence[str], templates: str | Path | Sequence[str] = 'plain') -> Tensor:
    """Encode prompts, normalise, average by class and normalise again: unit vectors, (C, E) float32 on the CPU.

    Args:
        teacher: Object with ``encode_text(list of str) -> (n, E)``.
        classes: Names of the C classes, used as they are.
        templates: See :func:`~clipgs_plugin.datasets.prompts.load_templates`.

    Raises:
        ValueError: No classes, or templates that :func:`load_templates` refuses.
    """
    if not classes:
        raise ValueError('no class names: a zero-shot classifier needs at least one')
    templates = load_templates(templates)
    prompts = [fill(template, name) for name in classes for template in templates]
    features = normalize(teacher.encode_text(prompts).double().cpu(), dim=-1)
    return normalize(features.reshape(len(classes), len(templates), -1).mean(1), dim=-1).to(torch.float32)
