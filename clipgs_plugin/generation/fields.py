"""Types of the fields of settings, which come from configs."""
from __future__ import annotations

from numbers import Integral, Real
from types import NoneType, UnionType
from typing import get_args, get_type_hints

_KINDS = {int: (Integral, 'an integer'), float: (Real, 'a number'), str: (str, 'a string'),
          NoneType: (NoneType, 'None')}


def check_fields(settings) -> None:
    """Check the fields of a dataclass that its annotations declare as numbers, strings, or one of these or None.

    Raises:
        ValueError: A field has another type.
    """
    for name, hint in get_type_hints(type(settings)).items():
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        value = getattr(settings, name)
        if not set(kinds) <= set(_KINDS):
            continue
        if isinstance(value, bool) or not any(isinstance(value, _KINDS[kind][0]) for kind in kinds):
            raise ValueError(f'{name}={value!r:.60}: expected {" or ".join(_KINDS[kind][1] for kind in kinds)}')
