"""Models named ``views:TEACHER``: rendered views in a CLIP model."""
from __future__ import annotations

import warnings
from pathlib import Path

from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.configs import get_config
from clipgs_plugin.models.teachers.sources import VIEWS as PREFIX
from clipgs_plugin.models.teachers.sources import resolve_source
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue

CONFIG = 'views_vit-b-32-openai_0e_splats'
# The teacher of the toy world knows pictures on light grey.
CONFIGS = {'toy-clip': 'views_toy-clip_0e_toy-world'}
TYPE = 'MultiViewCLIP'
NO_TEACHER = '{} names no teacher; write views:TEACHER, such as views:vit-b-32-openai'


def is_multi_view(name_or_config: str | Config) -> bool:
    """Return True for ``views:TEACHER`` and for configs of :class:`~clipgs_plugin.models.MultiViewCLIP`."""
    if isinstance(name_or_config, Config):
        return str(name_or_config.get('model', {}).get('type')).rpartition('.')[2] == TYPE
    return str(name_or_config).startswith(PREFIX)


def multi_view_config(name: str) -> Config:
    """Load the config of a name.

    Args:
        name: ``views:TEACHER`` or ``views:TEACHER@TAG``. The teacher is a name for
            :class:`~clipgs_plugin.models.OpenCLIPTeacher`; the tag is its ``pretrained``, a tag or a file.

    Raises:
        ValueError: The name has no teacher.
    """
    teacher, _, pretrained = name.removeprefix(PREFIX).partition('@')
    if not teacher:
        raise ValueError(NO_TEACHER.format(repr(name)))
    if teacher in CONFIGS and not pretrained:
        return get_config(CONFIGS[teacher])
    return get_config(CONFIG, {'teacher_name': teacher, 'pretrained': pretrained or None})


def require_trained(name: str) -> None:
    """Check that a name ``views:TEACHER`` stands for trained weights, which need not be here; nothing is loaded.

    Raises:
        ValueError: The teacher is unknown, or an architecture without weights.
    """
    teacher, _, pretrained = name.removeprefix(PREFIX).partition('@')
    if not teacher:
        raise ValueError(NO_TEACHER.format(repr(name)))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # random weights are an error here
        source = resolve_source(teacher, pretrained or None)
    if not source.trained:
        import open_clip
        known = [entry for entry, found in load_catalogue('teachers').items() if found['model'] == source.model]
        names = known or [f'{source.model}@{tag}' for tag in open_clip.list_pretrained_tags_by_model(source.model)]
        raise ValueError(f'{name} names an architecture without weights, whose features would be noise; name a tag or '
                         f'file of weights as views:{teacher}@TAG'
                         + (f', or one of {", ".join(PREFIX + each for each in names[:3])}' if names else ''))


def build_multi_view(name: str, cfg: Config, checkpoint: str | Path | None = None) -> nn.Module:
    """Build a model with its teacher, whose weights are all it has.

    Raises:
        ValueError: There is a checkpoint.
    """
    if checkpoint is not None:
        raise ValueError(f'{name} has no weights besides those of its teacher, so the checkpoint {checkpoint} would be '
                         'ignored; leave it out, or name the weights of the teacher as views:TEACHER@FILE')
    model = MODELS.build(cfg.model)
    model.cfg, model.name = cfg, name
    return model
