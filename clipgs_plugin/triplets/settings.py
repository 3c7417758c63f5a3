"""Settings of a triplet dataset, ``dataset.json``."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipgs_plugin.io.checked_json import check_types, read_json
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.codecs import to_json
from clipgs_plugin.triplets.layout import FORMAT, FORMAT_VERSION, SETTINGS

SCHEMA = {'frame': str, 'sh_degree': int, 'dtype': str, 'webp_quality': (int, None), 'objects_per_shard': int,
          'render': dict, 'generator': dict, 'counts?': {'objects': int, 'splits': dict}}


def read_settings(root: str | Path, schema: dict = SCHEMA) -> dict:
    """Read ``dataset.json`` and check its format.

    Args:
        root: Folder of the dataset.
        schema: Expected types, see :func:`~clipgs_plugin.io.checked_json.check_types`.

    Raises:
        FileNotFoundError: The folder has no ``dataset.json``.
        ValueError: The file is not JSON, has another format or version, or a setting has another type.
    """
    path = Path(root) / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f'{path} not found: {root} is not a triplet dataset; make one with '
                                'tools/make_toy_world.py, or from your own data with tools/make_triplets.py '
                                'or clipgs_plugin.triplets.ShardWriter')
    settings = read_json(path, schema={})
    if settings.get('format') != FORMAT or settings.get('version') != FORMAT_VERSION:
        raise ValueError(f'{path}: format {settings.get("format")!r} version {settings.get("version")!r}, this release '
                         f'reads {FORMAT!r} version {FORMAT_VERSION}; use the release that wrote it')
    check_types(settings, schema, str(path))
    return settings


def write_settings(root: str | Path, settings: dict) -> None:
    """Write ``dataset.json``."""
    write_whole(Path(root) / SETTINGS, [to_json(settings, indent=2)])


def describe_differences(found: dict, expected: dict) -> str:
    """Describe the expected settings whose found value differs, for an error message."""
    return '; '.join(f'{name}: found {_shorten(value)}, expected {_shorten(other)}'
                     for name, value, other in _differences(found, expected))


def _shorten(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _differences(found: dict, expected: dict, prefix: str = '') -> Iterator[tuple[str, Any, Any]]:
    for key, other in expected.items():
        value = found.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(value, {**dict.fromkeys(value), **other}, f'{prefix}{key}.')
        elif value != other:
            yield f'{prefix}{key}', value, other
