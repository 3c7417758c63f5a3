"""Teachers of metrics, of which one tower is built."""
from __future__ import annotations

from torch import nn

from clipgs_plugin.models import OpenCLIPTeacher
from clipgs_plugin.registry import MODELS


def build_tower(teacher: dict | nn.Module, tower: str, device: str) -> nn.Module:
    """Build one tower of a teacher from its config, on a device; a module is returned as it is.

    A config that sets ``towers`` itself, and one of another type than ``OpenCLIPTeacher``, are built as they stand.

    Args:
        teacher: Config, or module.
        tower: ``'text'`` or ``'image'``.
        device: Device of a teacher that is built.
    """
    if isinstance(teacher, nn.Module):
        return teacher
    kind = MODELS.get(teacher['type']) if isinstance(teacher['type'], str) else teacher['type']
    only = {'towers': tower} if kind is OpenCLIPTeacher else {}
    return MODELS.build({**only, **teacher}).to(device)
