"""Plain data of a model's config, and the check of such data from anywhere before anything is built from it.

mmengine imports whatever module a ``type`` or ``_scope_`` names. Here a type is accepted only if it is registered, and
its whole name replaces the short one, so that building imports nothing.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry

from clipgs_plugin.io.checked_json import read_json
from clipgs_plugin.registry import MODELS, SCOPE, TRANSFORMS

FORMAT = 1
MAX_BYTES = 2 ** 20
# Settings that only initialise a model; the shared weights replace them, and they may hold paths of one machine.
INITIAL = ('init_cfg', 'pretrained', 'checkpoint_path')
SCHEMA = {'format': int, 'model': {'type': str}, 'teacher': ({'type': str}, None), 'pipeline': [{'type': str}],
          'card?': {'license?': str, 'data?': str, 'metrics?': dict, 'quantiles?': dict}}


def to_plain(cfg: Config) -> dict:
    """Return what a model needs to answer, as data that JSON holds: architecture, teacher and pipeline.

    Args:
        cfg: Config with ``model``, ``test_dataloader.dataset.pipeline`` and, for texts and images, ``teacher``.

    Raises:
        ValueError: The config holds a value that is no plain data, or a type that is not registered.
    """
    model = {key: value for key, value in cfg.model.items() if key != 'teacher'}
    return {
        'library_name': SCOPE,
        'format': FORMAT,
        'model': checked(_plain(model, 'model', INITIAL), MODELS, 'model'),
        'teacher': checked(_plain(cfg.get('teacher'), 'teacher'), MODELS, 'teacher'),
        'pipeline': checked(_plain(cfg.test_dataloader.dataset.pipeline, 'pipeline'), TRANSFORMS, 'pipeline'),
    }


def read_shared_config(path: Path) -> Config:
    """Read and check the ``config.json`` of a shared model; nothing is built, imported or executed.

    Raises:
        ValueError: The file is damaged, of another library, or holds a type that is not registered.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f'{path}: {path.stat().st_size} bytes, expected at most {MAX_BYTES}; it is not the config of '
                         'a shared model')
    data = read_json(path)
    found = data.get('library_name') if isinstance(data, dict) else None
    if found != SCOPE:
        raise ValueError(f'{path}: library_name is {ascii(found)[:60]}, expected {SCOPE!r}; give a folder or '
                         'repository that save_pretrained of this library wrote')
    data = read_json(path, schema=SCHEMA)
    if data['format'] != FORMAT:
        raise ValueError(f'{path}: format {data["format"]}, this version reads {FORMAT}; update clipgs_plugin')
    data['model'].pop('teacher', None)  # texts and images take the teacher beside the model
    model, teacher = (checked(data[key], MODELS, f'{path}: {key}') for key in ('model', 'teacher'))
    pipeline = checked(data['pipeline'], TRANSFORMS, f'{path}: pipeline')
    return Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline)), card=data.get('card', {}),
                       **({} if teacher is None else dict(teacher=teacher))))


def _plain(value: Any, place: str, dropped: tuple[str, ...] = ()) -> Any:
    """Copy a value of a config as dicts, lists, strings and finite numbers, without the dropped keys."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f'{place}.{key}', dropped) for key, item in value.items() if key not in dropped}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f'{place}[{i}]', dropped) for i, item in enumerate(value)]
    if isinstance(value, type) and place.endswith('.type'):
        return value.__name__
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f'{place} of the config is {ascii(value)[:60]} of type {type(value).__name__}, which JSON does '
                     'not hold; write it as a string, number, list or dict')


def checked(value: Any, registry: Registry, place: str) -> Any:
    """Copy plain data with the whole names of its types.

    Args:
        value: Dicts, lists, strings and numbers.
        registry: Registry of this library that holds the types.
        place: Name of the value in errors.

    Raises:
        ValueError: A type is not registered, or a key has a meaning for mmengine beyond an argument.
    """
    if isinstance(value, list):
        return [checked(item, registry, f'{place}[{i}]') for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    for key in value:
        if key.startswith('_') or key == 'custom_imports':
            raise ValueError(f'{place}.{ascii(key)[1:-1][:60]} is no setting of a model, and could import or run code; '
                             'remove it if you trust its origin')
    return {key: _whole_name(item, registry, place) if key == 'type' else checked(item, registry, f'{place}.{key}')
            for key, item in value.items()}


def _whole_name(name: Any, registry: Registry, place: str) -> str:
    """Return the name of a registered type with its scope; no module is imported but those of this library."""
    registry.import_from_location()
    parent = registry.parent
    known = {SCOPE: registry, parent.scope: parent, **parent.children}
    scope, _, short = name.rpartition('.') if isinstance(name, str) else ('', '', '')
    for candidate in (scope,) if scope else (SCOPE, parent.scope):
        if candidate in known and short in known[candidate].module_dict:
            return f'{candidate}.{short}'
    raise ValueError(f'{place}: type {ascii(name)[:80]} is not registered, so it was not built; if you trust it, '
                     'import the package that registers it first')
