"""Models by name: the architecture of a config, the weights of the catalogue or a checkpoint."""
from __future__ import annotations

import warnings
from importlib.resources import files
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.configs import get_config, list_configs
from clipgs_plugin.apis.sharing import is_shared
from clipgs_plugin.models.pretrained import load_pretrained, load_weights
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue


def list_models() -> list[str]:
    """List the names for :func:`get_model`: models that ship with weights first, then every config."""
    return [*load_catalogue('models'), *list_configs()]


def get_model(
    name_or_config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = 'cpu',
) -> nn.Module:
    """Build a model in eval mode.

    Args:
        name_or_config: Name of :func:`list_models`, path of a config, ``Config``, or a shared model: a folder of
            ``save_pretrained``, ``owner/name`` or ``hf-hub:owner/name``. Names of the catalogue and shared models come
            with weights.
        checkpoint: Path of a ``.pth`` of a training run or of ``.safetensors``; it replaces the catalogue's weights.
        device: Device of the model.

    Returns:
        The model; ``model.cfg`` is its config and ``model.name`` its name.

    Raises:
        FileNotFoundError: The name is unknown or the checkpoint is missing.
        ValueError: The checkpoint does not fit the model; the message names the keys.
    """
    if is_shared(name_or_config):
        return load_pretrained(name_or_config, checkpoint).to(device)
    name, cfg, weights = _resolve(name_or_config)
    weights = Path(checkpoint) if checkpoint is not None else weights
    model = MODELS.build({**cfg.model, 'teacher': None})
    if weights is None:
        warnings.warn(f'{name}: no checkpoint given, the weights are random', stacklevel=2)
    else:
        load_weights(model, weights)
    model.cfg, model.name = cfg, name
    return model.to(device).eval()


def _resolve(name_or_config: str | Path | Config) -> tuple[str, Config, Path | None]:
    """Return name, config and shipped weights, or None for the weights of a config."""
    if isinstance(name_or_config, Config):
        return Path(name_or_config.filename or 'config').stem, name_or_config, None
    name = str(name_or_config)
    entry = load_catalogue('models').get(name)
    if entry is None:
        return name, get_config(name), None
    warnings.warn(f'{name}: {" ".join(entry["note"].split())}', stacklevel=3)
    weights = Path(str(files('clipgs_plugin'))) / 'weights' / entry['weights'] / 'weights.safetensors'
    return name, get_config(entry['config']), weights
