"""Sentences about toy objects."""
from __future__ import annotations

import numpy as np

# Templates of full descriptions: {look} goes before the noun and may be empty, {detail} after it.
_FULL = ('{a} {look}{noun}', 'a 3D model of {a} {look}{noun}', 'a photo of {a} {look}{noun}',
         'a toy: {a} {look}{noun}', 'a rendering of {a} {look}{noun}', '{a} {look}{noun} on a light background')
_DETAILED = ('{a} {first} {noun} {detail}', 'a picture of {a} {first} {noun} {detail}',
             'a small {first} {noun} {detail}')
_NOUN = ('{a} {noun}', 'a photo of {a} {noun}', 'a 3D model of {a} {noun}', 'a toy {noun}')

_DETAILS = {'plain': 'without any pattern', 'striped': 'with stripes', 'ringed': 'with rings', 'checkered': 'with checks',
            'dotted': 'with dots', 'zigzag': 'with zigzag lines', 'gradient': 'with a colour gradient',
            'clean': 'without a mark', 'dusty': 'with dust on top', 'muddy': 'with mud on its underside',
            'speckled': 'with paint speckles'}
_UNSAID = ('plain', 'clean', 'natural')  # words nobody says of an ordinary thing


def article(words: str) -> str:
    """``'a'`` or ``'an'`` before words."""
    return 'an' if words.strip()[0].lower() in 'aeiou' else 'a'


def describe(look: tuple[str, str], noun: str) -> str:
    """The shortest full description: ``'red striped chair'``; words nobody says are left out."""
    return ' '.join([word for word in look if word not in _UNSAID] + [noun])


def captions(category: str, look: tuple[str, str], rng: np.random.Generator, num_full: int = 3) -> list[str]:
    """Sentences about one object, all different.

    The first is the plain description (``'a red striped chair'``) and so the same for every object of that look,
    the last names the category alone, those between are paraphrases of the first.

    Args:
        category: The noun.
        look: Colour and pattern, or tone and wear.
        rng: Chooses the paraphrases.
        num_full: How many paraphrases, 1 to 6.
    """
    description = describe(look, category)
    first, second = look
    sentences = [f'{article(description)} {description}']
    paraphrases = [template.format(a=article(description), look='', noun=description) for template in _FULL[1:]]
    subject = f'{first} {category}' if first not in _UNSAID else category
    paraphrases += [' '.join(template.format(a=article(subject), first='', noun=subject, detail=_DETAILS[second]).split())
                    for template in _DETAILED]
    sentences += [paraphrases[i] for i in rng.permutation(len(paraphrases))[:num_full]]
    return [*sentences, _NOUN[rng.integers(len(_NOUN))].format(a=article(category), noun=category)]
