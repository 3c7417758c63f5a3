"""Models by name: the architecture of a config, the weights of the catalogue or a checkpoint."""
from __future__ import annotations

import warnings
from importlib.resources import files
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.configs import get_config
from clipgs_plugin.apis.multi_view import build_multi_view, is_multi_view, multi_view_config
from clipgs_plugin.apis.published import is_published_name, load_published, published_config
from clipgs_plugin.apis.sharing import is_shared
from clipgs_plugin.models.checkpoints.reading import read_classes
from clipgs_plugin.models.gs_classifier import GSClassifier
from clipgs_plugin.models.pretrained import load_pretrained, load_weights, pretrained_config
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue


def get_model(
    name_or_config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = 'cpu',
    download: bool = False,
) -> nn.Module:
    """Build a model in eval mode.

    Args:
        name_or_config: Name of :func:`list_models`, path of a config, ``Config``, or a shared model: a folder of
            ``save_pretrained``, ``owner/name`` or ``hf-hub:owner/name``. ``clipgs_toy`` and shared models come with
            weights; the file of a published point-cloud model such as ``'uni3d-b'`` is found by its name.
            ``views:TEACHER`` embeds rendered views; see :mod:`clipgs_plugin.apis.multi_view`.
        checkpoint: Path of a ``.pth`` of a training run or of ``.safetensors``; it replaces the catalogue's weights.
            For a published point-cloud model, path of its file; None finds the file by the name.
        device: Device of the model.
        download: Download the file of a published model that is not found.

    Returns:
        The model; ``model.cfg`` is its config and ``model.name`` its name.

    Raises:
        FileNotFoundError: The name is unknown or the checkpoint is missing.
        OSError: The download failed.
        ValueError: The checkpoint does not fit the model; the message names the keys.
    """
    if is_published_name(name_or_config):
        return load_published(str(name_or_config), checkpoint, download).to(device)
    if is_shared(name_or_config):
        return load_pretrained(name_or_config, checkpoint).to(device)
    name, cfg, weights = _resolve(name_or_config)
    weights = Path(checkpoint) if checkpoint is not None else weights
    if is_multi_view(cfg):
        return build_multi_view(name, cfg, checkpoint).to(device).eval()
    model = MODELS.build({key: value for key, value in cfg.model.items() if key != 'teacher'})
    if weights is None:
        warnings.warn(f'{name}: no checkpoint given, the weights are random', stacklevel=2)
    else:
        load_weights(model, weights)
        if getattr(model, 'classes', ()) is None:
            model.classes = read_classes(weights)
    model.cfg, model.name = cfg, name
    return model.to(device).eval()


def get_model_config(name: str | Path, options: dict | None = None) -> Config:
    """Load the config of an experiment, or of a model by its name: published, shipped, shared or ``views:TEACHER``.

    Args:
        name: Name or path for :func:`get_config`, or name of a model.
        options: Settings that override the config's, by dotted keys.

    Raises:
        FileNotFoundError: The name is unknown.
        ValueError: The published model does not embed into the space of a teacher.
    """
    if is_published_name(name):
        return published_config(str(name), options=options)
    if is_multi_view(name) or is_shared(name):
        cfg = multi_view_config(str(name)) if is_multi_view(name) else pretrained_config(name)
        cfg.merge_from_dict(options or {})
        return cfg
    entry = load_catalogue('models').get(str(name))
    return get_config(name if entry is None else entry['config'], options)


def is_classifier(cfg: Config) -> bool:
    """Check whether the model of a config is a :class:`~clipgs_plugin.models.GSClassifier`."""
    kind = cfg.get('model', {}).get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, GSClassifier)


def _resolve(name_or_config: str | Path | Config) -> tuple[str, Config, Path | None]:
    """Return name, config and shipped weights, or None for the weights of a config."""
    if isinstance(name_or_config, Config):
        return Path(name_or_config.filename or 'config').stem, name_or_config, None
    name = str(name_or_config)
    if is_multi_view(name):
        return name, multi_view_config(name), None
    entry = load_catalogue('models').get(name)
    if entry is None:
        return name, get_config(name), None
    warnings.warn(f'{name}: {" ".join(entry["note"].split())}', stacklevel=3)
    return name, get_config(entry['config']), shipped_weights(entry)


def shipped_weights(entry: dict) -> Path:
    """Return the file of the weights of an entry in the catalogue of models."""
    return Path(str(files('clipgs_plugin'))) / 'weights' / entry['weights'] / 'weights.safetensors'
