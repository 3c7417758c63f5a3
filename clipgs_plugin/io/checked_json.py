"""JSON from files that may be damaged or made to harm: bounded, finite, and of declared types."""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
MAX_INTEGER = 2 ** 64  # larger ones become Python objects in numpy
REMEDY = 'it is damaged, download or write it again'


def read_json(source: Path | bytes, name: str | None = None, schema: Any = object) -> Any:
    """Parse a JSON document in UTF-8 and check its values.

    NaN, infinite numbers, integers beyond 64 bits, lone surrogates and nesting beyond ``MAX_DEPTH`` are refused,
    whatever the schema.

    Args:
        source: Path of the file, or its content.
        name: Name of the document in errors, by default the path.
        schema: Expected types, see :func:`check_types`.

    Raises:
        OSError: The file cannot be read.
        ValueError: The document is not JSON, holds a refused value, or does not match the schema.
    """
    name = str(source if name is None else name) if isinstance(source, Path) else name or 'JSON'
    data = source.read_bytes() if isinstance(source, Path) else source
    try:
        value = json.loads(data.decode('utf-8-sig'), parse_constant=_constant, parse_float=_float, parse_int=_integer)
        if b'\\u' in data:  # the only way to a lone surrogate
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError(f'{name}: JSON nested deeper than {MAX_DEPTH} levels; {REMEDY}') from None
    except UnicodeEncodeError:
        raise ValueError(f'{name}: JSON with half of a surrogate pair, which is no character; {REMEDY}') from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError among them
        raise ValueError(f'{name}: not valid JSON ({error}); {REMEDY}') from None
    _check_depth(value, name)
    check_types(value, schema, name)
    return value


def check_types(value: Any, schema: Any, name: str) -> None:
    """Compare a parsed document with the types that a schema declares.

    A schema is one of these, to any depth:

    - a type: ``str``, ``bool``, ``int``, ``float`` (any number), ``list``, ``dict``, or ``object`` for any value;
    - ``None`` for null;
    - a dict of schemas by key. A key that ends in ``?`` may be absent; keys that are not listed are ignored;
    - a list of one schema for a list of any length, or of several schemas for a list of that length;
    - a tuple of alternatives.

    Example:
        >>> check_types({'count': 3, 'mins': [0, 0.5, 1]}, {'count': int, 'mins': [float] * 3, 'note?': str}, 'a.json')

    Raises:
        ValueError: A value has another type, or a key is missing; the message names its place, such as ``means.files``.
    """
    for place, found, expected in _mismatches(value, schema, ''):
        raise ValueError(f'{name}: {place or "the document"} {found}, expected {expected}; {REMEDY}')


def _mismatches(value: Any, schema: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the finding and the expectation of every value that does not match."""
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, below in schema.items():
            plain = key.removesuffix('?')
            here = f'{place}.{plain}' if place else plain
            if plain in value:
                yield from _mismatches(value[plain], below, here)
            elif plain == key:
                yield here, 'is missing', describe(below)
    elif isinstance(schema, list) and isinstance(value, list):
        if len(schema) != 1 and len(value) != len(schema):
            yield place, f'has {len(value)} entries', str(len(schema))
            return
        for i, (item, below) in enumerate(zip(value, schema * len(value) if len(schema) == 1 else schema)):
            yield from _mismatches(item, below, f'{place}[{i}]')
    elif isinstance(schema, tuple):
        if all(any(True for _ in _mismatches(value, alternative, place)) for alternative in schema):
            yield place, f'is {_short(value)}', describe(schema)
    elif not _is_of(value, schema):
        yield place, f'is {_short(value)}', describe(schema)


def _is_of(value: Any, schema: Any) -> bool:
    if schema is None or isinstance(value, bool):
        return value is schema or (schema in (bool, object) and isinstance(value, bool))
    if schema is float:
        return isinstance(value, (int, float))
    return isinstance(schema, type) and isinstance(value, schema)


def describe(schema: Any) -> str:
    """Return a schema in words."""
    words = {str: 'a string', bool: 'true or false', int: 'an integer', float: 'a number', list: 'a list',
             dict: 'an object', object: 'any value', None: 'null'}
    if isinstance(schema, tuple):
        return ' or '.join(describe(alternative) for alternative in schema)
    if isinstance(schema, dict):
        return f'an object with {", ".join(key for key in schema if not key.endswith("?")) or "any keys"}'
    if isinstance(schema, list):
        return f'a list of {"" if len(schema) == 1 else f"{len(schema)} times "}{describe(schema[0])}'
    return words[schema]


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f'{"an object" if isinstance(value, dict) else "a list"} of {len(value)}'
    text = ascii(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _check_depth(value: Any, name: str) -> None:
    level, depth = [value], 0
    while level := [child for parent in level if isinstance(parent, (dict, list))
                    for child in (parent.values() if isinstance(parent, dict) else parent)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f'{name}: JSON nested deeper than {MAX_DEPTH} levels; {REMEDY}')


def _constant(text: str) -> float:
    raise ValueError(f'{text} is not a number of JSON')


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f'{text[:40]} is too large for a number')
    return value


def _integer(text: str) -> int:
    if len(text) > 21 or abs(value := int(text)) >= MAX_INTEGER:
        raise ValueError(f'{text[:21]}... is an integer of {len(text)} digits, beyond 64 bits')
    return value
