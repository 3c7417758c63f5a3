"""Specifications of objects, and their splits.

A look is a pair: colour and pattern for categories of shape, tone and wear for categories of appearance. A quarter of
the looks of each category is held out, the same for every seed. Train and test share categories, colours and patterns,
but no combination of the three. Val, the split for model selection, has other objects of the looks of train, so that
test objects never influence a choice.
"""
from __future__ import annotations

import zlib
from dataclasses import dataclass
from itertools import product

import numpy as np

from clipgs_plugin.toy_world.appearances import APPEARANCES, TONES, WEARS
from clipgs_plugin.toy_world.captions import describe
from clipgs_plugin.toy_world.categories import SHAPES
from clipgs_plugin.toy_world.patterns import COLORS, PATTERNS

SPLITS = ('train', 'test', 'val')
CATEGORIES = {**SHAPES, **APPEARANCES}


@dataclass(frozen=True)
class ObjectSpec:
    """Specification that determines an object.

    Attributes:
        uid: Name in a dataset.
        split: ``'train'``, ``'val'`` or ``'test'``.
        category: Key of ``CATEGORIES``.
        look: Keys of ``COLORS`` and ``PATTERNS``; for categories of a group, keys of ``TONES`` and ``WEARS``.
        seed: Random seed of the proportions, whole numbers of at least 0.
    """

    uid: str
    split: str
    category: str
    look: tuple[str, str]
    seed: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.category not in CATEGORIES:
            raise ValueError(f'category={self.category!r}: expected one of {", ".join(CATEGORIES)}')
        for word, table in zip(self.look, _tables(self.category), strict=True):
            if word not in table:
                raise ValueError(f'look={self.look!r} of {self.category}: expected one of {", ".join(table)}, '
                                 f'not {word!r}')

    @property
    def attributes(self) -> dict[str, str]:
        """Look as a dictionary: color and pattern, or tone and wear."""
        names = ('color', 'pattern') if CATEGORIES[self.category].group is None else ('tone', 'wear')
        return dict(zip(names, self.look))

    @property
    def name(self) -> str:
        """File name without suffix, as ``'red_striped_chair'``."""
        return describe(self.look, self.category).replace(' ', '_')


def _tables(category: str) -> tuple[dict, dict]:
    """Return the tables of the two words of a category's looks."""
    return (COLORS, PATTERNS) if CATEGORIES[category].group is None else (TONES, WEARS)


def looks(category: str, split: str) -> list[tuple[str, str]]:
    """Return the looks of a category in a split.

    Held-out looks lie on diagonals of the table of looks, so each row and each column keeps looks for training.
    """
    first, second = _tables(category)
    offset = zlib.crc32(category.encode())
    held_out = [(a + b + offset) % 4 == 0 for a, b in product(range(len(first)), range(len(second)))]
    return [look for look, test in zip(product(first, second), held_out) if test == (split == 'test')]


def object_specs(num_objects: int, seed: int = 0, split: str = 'train') -> list[ObjectSpec]:
    """Return specifications of objects, with categories in turn.

    No look of a category repeats before all its looks have occurred.

    Args:
        num_objects: Number of objects; a shorter list is a prefix of a longer one.
        seed: Random seed of the proportions and of the order of looks.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: Unknown split, or a negative number or seed.
    """
    if split not in SPLITS:
        raise ValueError(f'split={split!r}: expected one of {SPLITS}')
    if num_objects < 0 or seed < 0:
        raise ValueError(f'num_objects={num_objects}, seed={seed}: expected numbers of at least 0')
    key = (seed, SPLITS.index(split))
    rng = np.random.default_rng(key)
    shuffled = {name: [table[i] for i in rng.permutation(len(table))]
                for name, table in ((name, looks(name, split)) for name in CATEGORIES)}
    names = list(CATEGORIES)
    specs = []
    for turn in range(-(-num_objects // len(names))):
        for i in rng.permutation(len(names)):
            look = shuffled[names[i]][turn % len(shuffled[names[i]])]
            specs.append(ObjectSpec(f'toy-{split}-{len(specs):05d}', split, names[i], look, (*key, len(specs))))
    return specs[:num_objects]
