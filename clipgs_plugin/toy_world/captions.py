"""Sentences about toy objects."""
from __future__ import annotations

import numpy as np

_FULL = '{a} {thing}'
_PARAPHRASES = ('a 3D model of {a} {thing}', 'a photo of {a} {thing}', 'a toy: {a} {thing}',
                'a rendering of {a} {thing}', '{a} {thing} on a light background', '{b} {plain_thing} {detail}',
                'a picture of {b} {plain_thing} {detail}', 'this is {b} {plain_thing} {detail}')
_NOUN_ALONE = ('{a} {thing}', 'a photo of {a} {thing}', 'a 3D model of {a} {thing}', 'a toy {thing}')

# What each pattern and wear is called after the noun.
_DETAILS = {'plain': 'without any pattern', 'striped': 'with stripes', 'ringed': 'with rings',
            'checkered': 'with checks', 'dotted': 'with dots', 'zigzag': 'with zigzag lines',
            'gradient': 'with a colour gradient', 'clean': 'without a mark', 'dusty': 'with dust on top',
            'muddy': 'with mud below', 'speckled': 'with white speckles'}
_UNSAID = ('plain', 'clean', 'natural')  # words nobody says of an ordinary thing


def article(words: str) -> str:
    """``'a'`` or ``'an'`` before words."""
    return 'an' if words[0].lower() in 'aeiou' else 'a'


def describe(look: tuple[str, str], noun: str) -> str:
    """The shortest full description: ``'red striped chair'``; words nobody says are left out."""
    return ' '.join([word for word in look if word not in _UNSAID] + [noun])


def captions(category: str, look: tuple[str, str], rng: np.random.Generator, num_paraphrases: int = 3) -> list[str]:
    """Sentences about one object, all different.

    The first is the plain description (``'a red striped chair'``), the same for every object of that look. Those
    between say the same in other words, and the last names the category alone.

    Args:
        category: The noun.
        look: Colour and pattern, or tone and wear.
        rng: Chooses the words.
        num_paraphrases: 0 to 8.
    """
    thing, plain_thing = describe(look, category), describe(look[:1], category)
    words = dict(a=article(thing), thing=thing, b=article(plain_thing), plain_thing=plain_thing,
                 detail=_DETAILS[look[1]])
    chosen = rng.permutation(len(_PARAPHRASES))[:num_paraphrases]
    sentences = [template.format(**words) for template in (_FULL, *(_PARAPHRASES[i] for i in chosen))]
    # An object without anything to say of it has its noun alone as the first sentence already.
    alone = _NOUN_ALONE[int(rng.integers(len(_NOUN_ALONE)))].format(a=article(category), thing=category)
    return [*sentences, *([] if alone in sentences else [alone])]
