"""Captions of objects by rules: from a manifest, from names and categories, and from templates."""
from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from clipgs_plugin.generation.fields import check_fields
from clipgs_plugin.generation.objects import Listed

# Words of file names that do not describe the object.
GENERIC = frozenset([
    '3d', 'asset', 'cloud', 'export', 'file', 'final', 'gaussian', 'gaussians', 'geometry', 'input', 'iteration',
    'manifold', 'mesh', 'meta', 'model', 'models', 'normalized', 'obj', 'object', 'original', 'out', 'output', 'point',
    'pointcloud', 'points', 'raw', 'result', 'scan', 'scene', 'simple', 'simplified', 'splat', 'splats', 'textured',
    'unnamed', 'untitled'])
_UUID = re.compile(r'[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}', re.IGNORECASE)
# Boundaries of words in one: teddy|Bear, Ultra|Chrome, ATX|Socket, 60|Day.
_SEAM = re.compile(r'(?<=[a-z]{2})(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[0-9])(?=[A-Z][a-z])')


@dataclass(frozen=True)
class CaptionRules:
    """Rules for the captions of an object.

    Attributes:
        sources: Sources of captions, in the order of the captions: ``'manifest'`` (captions that come with the object),
            ``'name'`` (of its file), ``'category'`` and ``'template'``.
        templates: Templates with the fields ``{category}``, ``{name}``, the object's attributes by name, and ``{a}``
            for the article of the next word. A template with a field that the object lacks is skipped.
        fallback: Caption of an object without any other, with source ``'template'``.
        limit: Maximum number of captions; None keeps all.

    Raises:
        TypeError: Something else than a list of strings.
        ValueError: An unknown source, a malformed template, or a limit below 1.
    """

    sources: tuple[str, ...] = ('manifest', 'name', 'category', 'template')
    templates: tuple[str, ...] = ('a 3D model of {a} {category}',)
    fallback: str = 'a 3D object'
    limit: int | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ('sources', 'templates'):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
                raise TypeError(f'{name}={value!r:.60}: expected a list of strings')
            object.__setattr__(self, name, tuple(getattr(self, name)))  # a config has lists
        unknown = [source for source in self.sources if source not in _RULES]
        if unknown:
            raise ValueError(f'sources contains {", ".join(unknown)}; expected some of {", ".join(_RULES)}')
        if self.limit is not None and self.limit < 1:
            raise ValueError(f'limit={self.limit}: expected at least 1, or None')
        for template in self.templates:
            _fields(template)


def captions_for(listed: Listed, rules: CaptionRules) -> tuple[dict, ...]:
    """Return the captions of an object by rules: ``dict(text=..., source=...)`` each, at least one, no text twice."""
    found = unique_captions(caption for source in rules.sources for caption in _RULES[source](listed, rules))
    return (found or unique_captions([dict(text=rules.fallback, source='template')]))[:rules.limit]


def unique_captions(captions: Iterable[dict]) -> tuple[dict, ...]:
    """Drop empty captions, and captions whose text differs from an earlier one only in case and spaces."""
    kept: dict[str, dict] = {}
    for caption in captions:
        text = ' '.join(caption['text'].split())
        if text:
            kept.setdefault(text.casefold(), {**caption, 'text': text})
    return tuple(kept.values())


def phrase(name: str) -> str:
    """Turn a name into words: ``Asus_Z97AR_ATX_Motherboard_0012`` becomes ``asus z97ar atx motherboard``.

    Joined words are split at their capitals. Ids at the end are dropped: UUIDs, hexadecimal and mixed-case hashes,
    numbers of four or more digits, and numbers with a leading zero. The result may be empty.
    """
    words = re.sub(r'[\W_]+', ' ', _UUID.sub(' ', name)).split()
    while words and _is_id(words[-1]):
        words.pop()
    return ' '.join(part for word in words for part in _SEAM.sub(' ', word).lower().split())


def name_phrase(listed: Listed) -> str:
    """Return the name of an object as words: its attribute ``name``, else its file, else the folder of the file.

    Names of only numbers, ids and generic words such as ``model`` are skipped. The result may be empty.
    """
    if isinstance(listed.attributes.get('name'), str):
        names = [listed.attributes['name']]
    else:
        path = Path(listed.path)
        names = [path.name.split('.')[0], path.parent.name]
    return next((words for words in map(phrase, names) if _is_descriptive(words)), '')


def _from_manifest(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(caption) for caption in listed.captions]


def _from_name(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(text=name_phrase(listed), source='name')]


def _from_category(listed: Listed, rules: CaptionRules) -> list[dict]:
    return [dict(text=phrase(listed.category or ''), source='category')]


def _from_templates(listed: Listed, rules: CaptionRules) -> list[dict]:
    values = {key: str(value) for key, value in listed.attributes.items()
              if isinstance(value, (str, int, float)) and str(value)}
    values.update(category=phrase(listed.category or ''), name=name_phrase(listed))
    return [dict(text=_filled(template, values), source='template') for template in rules.templates
            if all(values.get(field) for field in _fields(template))]


_RULES: dict[str, Callable[[Listed, CaptionRules], list[dict]]] = dict(
    manifest=_from_manifest, name=_from_name, category=_from_category, template=_from_templates)


def _fields(template: str) -> list[str]:
    """Return the fields of a template except the article.

    Raises:
        ValueError: A field without a name, or an unmatched brace.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f'template {template!r}: {error}') from None
    if not all(field.isidentifier() for field in fields):
        raise ValueError(f'template {template!r} has the fields {fields}, expected names such as {{category}}')
    return [field for field in fields if field != 'a']


def _filled(template: str, values: Mapping[str, str]) -> str:
    text = template.format(**{**values, 'a': '\0'})
    return re.sub(r'\0(\W*)(\w*)', lambda match: _article(match[2]) + match[1] + match[2], text)


def _article(word: str) -> str:
    word = word.lower()
    vowel = word[:1] in 'aeiou' and not word.startswith(('uni', 'use', 'usu', 'eu', 'one', 'uk'))
    return 'an' if vowel or word.startswith(('hour', 'honest', 'heir', '8')) or word in ('11', '18') else 'a'


def _is_id(word: str) -> bool:
    """Detect hashes and running numbers."""
    if word.isdigit():
        return len(word) >= 4 or (len(word) > 1 and word[0] == '0')
    if re.fullmatch(r'[0-9a-f]{8,}|[0-9A-F]{8,}', word) and re.search(r'\d', word):
        return True
    # Hashes change between lower case, upper case and digits more often than joined words do.
    kinds = re.sub(r'\d', '0', re.sub(r'[A-Z]', 'A', re.sub(r'[a-z]', 'a', word)))
    changes = sum(x != y and x + y != 'Aa' for x, y in pairwise(kinds))
    return len(word) >= 10 and len(set(kinds)) == 3 and changes >= 4


def _is_descriptive(words: str) -> bool:
    return any(word not in GENERIC and not word.isdigit() and len(word) > 1 for word in words.split())
