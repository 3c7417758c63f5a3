"""Captions of toy objects."""
from __future__ import annotations

import numpy as np

_FULL = '{a} {thing}'
_PARAPHRASES = ('a 3D model of {a} {thing}', 'a photo of {a} {thing}', 'a toy: {a} {thing}',
                'a rendering of {a} {thing}', '{a} {thing} on a light background', '{b} {plain_thing} {detail}',
                'a picture of {b} {plain_thing} {detail}', 'this is {b} {plain_thing} {detail}')
_NOUN_ALONE = ('{a} {thing}', 'a photo of {a} {thing}', 'a 3D model of {a} {thing}', 'a toy {thing}')

# Words for each pattern and wear after the noun.
_DETAILS = {'plain': 'without any pattern', 'striped': 'with stripes', 'ringed': 'with rings',
            'checkered': 'with checks', 'dotted': 'with dots', 'zigzag': 'with zigzag lines',
            'gradient': 'with a colour gradient', 'clean': 'without a mark', 'dusty': 'with dust on top',
            'muddy': 'with mud below', 'speckled': 'with white speckles'}
_OMITTED = ('plain', 'clean', 'natural')  # the default of each look


def article(words: str) -> str:
    """Return ``'a'`` or ``'an'``, the article of ``words``."""
    return 'an' if words[0].lower() in 'aeiou' else 'a'


def describe(look: tuple[str, str], noun: str) -> str:
    """Return the shortest full description, as ``'red striped chair'``; default words of the look are omitted."""
    return ' '.join([word for word in look if word not in _OMITTED] + [noun])


def captions(category: str, look: tuple[str, str], rng: np.random.Generator, num_paraphrases: int = 3) -> list[str]:
    """Return different captions of one object.

    The first is the plain description (``'a red striped chair'``), the same for every object of one look. Paraphrases
    of it follow. The last names the category alone.

    Args:
        category: Name of the category.
        look: Colour and pattern, or tone and wear.
        rng: Random source of the choice of words.
        num_paraphrases: Number of paraphrases, 0 to 8.
    """
    thing, plain_thing = describe(look, category), describe(look[:1], category)
    words = dict(a=article(thing), thing=thing, b=article(plain_thing), plain_thing=plain_thing,
                 detail=_DETAILS[look[1]])
    chosen = rng.permutation(len(_PARAPHRASES))[:num_paraphrases]
    sentences = [template.format(**words) for template in (_FULL, *(_PARAPHRASES[i] for i in chosen))]
    # The first sentence of an object of the default look already names the category alone.
    alone = _NOUN_ALONE[int(rng.integers(len(_NOUN_ALONE)))].format(a=article(category), thing=category)
    return [*sentences, *([] if alone in sentences else [alone])]
