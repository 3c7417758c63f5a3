"""What can be plugged in, as data: one YAML file a kind, one entry a thing."""
from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml


@cache
def load_catalogue(kind: str) -> dict[str, dict]:
    """The entries of ``KIND.yml`` by name."""
    return yaml.safe_load(files(__name__).joinpath(f'{kind}.yml').read_text(encoding='utf-8'))
