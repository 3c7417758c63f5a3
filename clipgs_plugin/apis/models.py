"""Models by name: the architecture of a config, the weights of the catalogue or a checkpoint."""
from __future__ import annotations

import warnings
from importlib.resources import files
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from clipgs_plugin.apis.configs import get_config, list_configs
from clipgs_plugin.models.checkpoints.catalogue import find_file
from clipgs_plugin.models.checkpoints.reading import read_checkpoint
from clipgs_plugin.models.checkpoints.safe_load import check_finite
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue


def list_models() -> list[str]:
    """List the names for :func:`get_model`: models that ship with weights first, then every config."""
    return [*load_catalogue('models'), *list_configs()]


def get_model(
    name_or_config: str | Path | Config,
    checkpoint: str | Path | None = None,
    device: str | torch.device = 'cpu',
    download: bool = False,
) -> nn.Module:
    """Build a model in eval mode.

    Args:
        name_or_config: Name of :func:`list_models`, path of a config, or ``Config``. Names of the catalogue come with
            weights.
        checkpoint: Path of a ``.pth`` of a training run or of ``.safetensors``; it replaces the catalogue's weights.
        device: Device of the model.
        download: Download the file of a published model that is not found.

    Returns:
        The model; ``model.cfg`` is its config and ``model.name`` its name.

    Raises:
        FileNotFoundError: The name is unknown or the checkpoint is missing.
        OSError: The download failed.
        ValueError: The checkpoint does not fit the model; the message names the keys.
    """
    if download and str(name_or_config) in load_catalogue('checkpoints'):
        find_file(str(name_or_config), download=True)
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


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a whole checkpoint.

    Raises:
        ValueError: Tensors are missing, unexpected, of another shape or not finite; the message names them.
    """
    state = read_checkpoint(path)
    expected = model.state_dict()
    # Older files hold logit_scale as a scalar, the model holds it with shape (1,).
    state = {key: value.view_as(expected[key]) if key in expected and value.numel() == expected[key].numel() == 1
             else value for key, value in state.items()}
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    wrong = {
        'missing': sorted(expected.keys() - state.keys()),
        'unexpected': sorted(state.keys() - expected.keys()),
        'of another shape': [f'{key} {tuple(state[key].shape)} for {tuple(expected[key].shape)}' for key in reshaped],
    }
    if any(wrong.values()):
        counts = '; '.join(f'{len(keys)} {kind} ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
                           for kind, keys in wrong.items() if keys)
        raise ValueError(f'{path} does not fit the model: {counts}; is it the checkpoint of this config?')
    check_finite(state, path)
    model.load_state_dict({key: value.to(expected[key].dtype) for key, value in state.items()})
