"""Shipped configs by name, and the loading of configs that build on them.

Beyond mmengine's ``Config.fromfile``, which takes ``package::config`` of OpenMMLab packages only and evaluates a base
before it reads the config on top:

- ``_base_ = 'clipgs_plugin::quickstart/NAME.py'`` names a shipped config from anywhere;
- a number or string at the top level of a config (``data_root``, ``teacher_name``) also replaces the value that its
  bases compute with, and a dict replaces an empty one (``dataset_options``).
"""
from __future__ import annotations

import ast
import difflib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from mmengine.config import Config

from clipgs_plugin.registry import SCOPE
from clipgs_plugin.registry.catalogue import load_catalogue

_PREFIX = f'{SCOPE}::'
_LOADING = threading.Lock()


def config_root() -> Path:
    """Return the folder of the shipped configs."""
    return Path(str(files('clipgs_plugin.configs')))


def list_configs() -> list[str]:
    """List the names of the shipped experiment configs, which are the stems of their files."""
    return sorted(path.stem for path in _config_files())


# Folders whose configs are no experiments.
NO_EXPERIMENTS = ('_base_', 'triplets', 'ablations')


def _config_files() -> list[Path]:
    root = config_root()
    return [path for path in root.rglob('*.py')
            if path.relative_to(root).parts[0] not in NO_EXPERIMENTS and path.name != '__init__.py']


def find_config(name: str | Path) -> Path:
    """Find the file of a config.

    Args:
        name: Name of a shipped config (``'clipgs_pointbert-nano_...'``), its path below the shipped configs
            (``'clipgs_plugin::quickstart/clipgs_pointbert-nano_....py'``), or path of any config.

    Raises:
        FileNotFoundError: The name is neither shipped nor a file; the message lists close names.
    """
    if str(name).startswith(_PREFIX):
        return _shipped_file(str(name))
    path = Path(name)
    if path.suffix == '.py':
        if path.is_file():
            return path
        raise FileNotFoundError(f'config {name} does not exist; give a path to a .py file or one of the names '
                                'that clipgs_plugin.list_models() returns')
    shipped = {path.stem: path for path in _config_files()}
    if str(name) in shipped:
        return shipped[str(name)]
    known = [*load_catalogue('models'), *load_catalogue('checkpoints'), *shipped]
    raise FileNotFoundError(f'no config or model is named {str(name)!r}; {_close(str(name), known)}')


def _shipped_file(name: str) -> Path:
    """Find a config by its path below the shipped configs; a path that leaves their folder is unknown."""
    shipped = {path.relative_to(config_root()).as_posix(): path for path in config_root().rglob('*.py')}
    if name[len(_PREFIX):] not in shipped:
        raise FileNotFoundError(f'no shipped config is named {name!r}; '
                                f'{_close(name, [_PREFIX + path for path in shipped])}')
    return shipped[name[len(_PREFIX):]]


def _close(name: str, known: list[str]) -> str:
    lower = {each.lower(): each for each in known}
    close = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]
    return f'close names are {", ".join(close)}' if close else 'tools/list_models.py lists the models'


def get_config(name: str | Path, options: Mapping | None = None) -> Config:
    """Load a config by name or path and merge its bases.

    A number or string at the top level of the config or of the options also replaces the value that a base computes
    with: ``data_root = 'data/mine'`` moves the datasets of the base. A dict of numbers, strings and lists of them
    replaces an empty dict of a base: ``dataset_options = dict(variant='OBJ_BG')``, or the option
    ``dataset_options.variant``.

    Args:
        name: Name or path, see :func:`find_config`.
        options: Settings that override the config's, by dotted keys.

    Raises:
        FileNotFoundError: There is no such config, or a base of it is missing.
        ValueError: A file is not Python.

    Example:
        >>> cfg = get_config('clipgs_pointbert-nano_15e_toy-world')
        >>> cfg.model.type
        'clipgs_plugin.CLIPGS'
    """
    path = find_config(name)
    try:
        config = _load(path, options or {})
    except SyntaxError as error:
        raise ValueError(f'{path}: a config in its chain is not Python: {error}; mend it') from error
    config.merge_from_dict(dict(options or {}))
    return config


def _load(path: Path, options: Mapping) -> Config:
    wanted = _replacing(options)
    for key, value in options.items():
        name, dot, inner = key.partition('.')
        if dot and '.' not in inner and _is_plain(value):
            wanted.setdefault(name, {})[inner] = value
    with _LOADING:
        with _own_rules(wanted):
            declared = Config.fromfile(path)
        with _own_rules(wanted, _replacing(declared)):
            return Config.fromfile(path)


def _replacing(values: Mapping) -> dict:
    """Return the values that replace those of bases: scalars, and dicts of scalars and of lists of them."""
    flat = {name: dict(value) for name, value in values.items()
            if isinstance(value, Mapping) and all(map(_is_plain, value.values()))}
    return flat | {name: value for name, value in values.items() if _is_scalar(value)}


def _is_plain(value) -> bool:
    return _is_scalar(value) or (isinstance(value, list | tuple) and all(map(_is_scalar, value)))


def _is_scalar(value) -> bool:
    return value is None or isinstance(value, str | int | float)


@contextmanager
def _own_rules(wanted: Mapping, declared: Mapping | None = None) -> Iterator[None]:
    """Within the context mmengine finds shipped bases, and bases compute with the values of the configs on top.

    The methods are private and static. mmengine calls them on ``Config``, so a subclass cannot replace them.

    Args:
        wanted: Values that replace what any file assigns to their names.
        declared: Values that replace what a file assigns to a name if a config on top assigns it too.
    """
    kept = {name: vars(Config)[name] for name in ('_file2dict', '_get_cfg_path', '_pre_substitute_base_vars')}
    read, find, substitute = (getattr(Config, name) for name in kept)
    on_top: list[set[str]] = []  # names that each open file assigns, from the outermost child to the innermost base

    def read_file(*args, **kwargs):
        on_top.append(set())
        try:
            return read(*args, **kwargs)
        finally:
            on_top.pop()

    def find_base(path: str, filename: str):
        return (str(_shipped_file(path)), None) if path.startswith(_PREFIX) else find(path, filename)

    def substitute_values(filename: str, written: str) -> dict:
        placeholders = substitute(filename, written)
        if written.endswith('.py'):
            text = Path(written).read_text(encoding='utf-8')
            names = set().union(*on_top)
            values = {key: value for key, value in (declared or {}).items() if key in names} | dict(wanted)
            text, assigned = _assign(text, values, placeholders)
            Path(written).write_text(text, encoding='utf-8')
            on_top[-1].update(assigned)
        return placeholders

    for name, method in zip(kept, (read_file, find_base, substitute_values)):
        setattr(Config, name, staticmethod(method))
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Config, name, method)


def _assign(text: str, values: Mapping, placeholders: Mapping) -> tuple[str, list[str]]:
    """Replace the right sides of assignments at the top level of a file.

    A name that the file assigns more than once is left alone. A dict replaces an empty dict only; mmengine merges into
    others.

    Returns:
        The text, and the names that the file assigns without reference to its bases.
    """
    tree = ast.parse(text)
    assigned = {node.targets[0].id: node for node in tree.body if isinstance(node, ast.Assign)
                and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)}
    stored = Counter(node.id for node in ast.walk(tree)
                     if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    free = [name for name, node in assigned.items() if not _of_base(node.value, placeholders)]
    replaced = [name for name in assigned if name in values and stored[name] == 1
                and _may_become(assigned[name].value, values[name])]
    for name in replaced:
        value = values[name]
        assigned[name].value = ast.parse(repr(value), mode='eval').body if isinstance(value, dict) else (
            ast.Constant(value))
    return ast.unparse(tree) if replaced else text, free  # errors in a text that stays have its line numbers


def _may_become(written: ast.expr, value) -> bool:
    """Tell if a value may replace a written one: a dict an empty dict, a scalar anything but a dict."""
    if isinstance(value, dict):
        return ast.unparse(written) in ('dict()', '{}')
    return not isinstance(written, ast.Dict) and not (
        isinstance(written, ast.Call) and ast.unparse(written.func) == 'dict')


def _of_base(value: ast.expr, placeholders: Mapping) -> bool:
    """Tell if an expression contains ``_base_`` or one of the strings that mmengine puts in its place."""
    return any(getattr(node, 'id', None) == '_base_' or getattr(node, 'value', None) in [*placeholders]
               for node in ast.walk(value))
