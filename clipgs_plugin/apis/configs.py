"""Shipped configs by name.

The ``package::config`` form of mmengine knows OpenMMLab packages only.
"""
from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path

from mmengine.config import Config

from clipgs_plugin.registry.catalogue import load_catalogue


def config_root() -> Path:
    """Return the folder of the shipped configs."""
    return Path(str(files('clipgs_plugin.configs')))


def list_configs() -> list[str]:
    """List the names of the shipped experiment configs, which are the stems of their files."""
    return sorted(path.stem for path in _config_files())


# Folders whose configs are no experiments.
NO_EXPERIMENTS = ('_base_', 'triplets')


def _config_files() -> list[Path]:
    root = config_root()
    return [path for path in root.rglob('*.py')
            if path.relative_to(root).parts[0] not in NO_EXPERIMENTS and path.name != '__init__.py']


def find_config(name: str | Path) -> Path:
    """Find the file of a config by its name (``'clipgs_pointbert-nano_...'``) or path.

    Raises:
        FileNotFoundError: The name is neither shipped nor a file; the message lists close names.
    """
    path = Path(name)
    if path.suffix == '.py':
        if path.is_file():
            return path
        raise FileNotFoundError(f'config {name} does not exist; give a path to a .py file or one of the names '
                                'that clipgs_plugin.list_models() returns')
    shipped = {path.stem: path for path in _config_files()}
    if str(name) in shipped:
        return shipped[str(name)]
    known = [*load_catalogue('models'), *shipped]
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4) or known
    raise FileNotFoundError(f'no config or model is named {str(name)!r}; close names are {", ".join(close)}')


def get_config(name: str | Path) -> Config:
    """Load a config by name or path and merge its bases.

    Example:
        >>> cfg = get_config('clipgs_pointbert-nano_15e_toy-world')
        >>> cfg.model.type
        'CLIPGS'
    """
    return Config.fromfile(find_config(name))
