"""Catalogue of checkpoints, teachers, models and datasets: one YAML file per kind."""
from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml


@cache
def load_catalogue(kind: str) -> dict[str, dict]:
    """Return the entries of ``KIND.yml`` by name."""
    return yaml.safe_load(files(__name__).joinpath(f'{kind}.yml').read_text(encoding='utf-8'))
