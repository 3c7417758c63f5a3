"""Captions from class names and prompt templates."""
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

# In a template '{}' is the class name and '{a}' its article.
TEMPLATES: dict[str, tuple[str, ...]] = {
    'plain': ('a {}',),
    'toy': ('{a} {}', 'a photo of {a} {}', 'a 3D model of {a} {}', 'a toy {}'),
    'objects': ('a 3D model of {a} {}', 'a rendering of {a} {}', 'a photo of {a} {}', 'a picture of one {}',
                'a 3D scan of {a} {}', 'a small {}', 'a {} on a plain background', '{a} {} seen from the side'),
}


def load_templates(templates: str | Path | Sequence[str]) -> list[str]:
    """Load templates by a name of ``TEMPLATES``, from a list, or from a JSON file.

    A JSON file holds a list, or a dict of lists; ``FILE.json:KEY`` names one of the dict. For example,
    ``'ULIP/data/templates.json:modelnet40_64'`` of a ULIP checkout has the 64 templates with which ULIP, OpenShape and
    Uni3D evaluate.

    Raises:
        ValueError: Unknown name or key, or a template without ``{}``.
        FileNotFoundError: No such file.
    """
    if isinstance(templates, (str, Path)):
        found = TEMPLATES[templates] if templates in TEMPLATES else _read(str(templates))
    else:
        found = templates
    found = list(found)
    for template in found:
        if '{}' not in template:
            raise ValueError(f"template {template!r} has no '{{}}' for the class name")
    if not found:
        raise ValueError(f'templates={templates!r} is empty, expected at least one template')
    return found


def _read(source: str) -> list[str]:
    name, key = source, None
    if not source.endswith('.json'):
        name, _, key = source.rpartition(':')
        if not name.endswith('.json'):
            raise ValueError(f'templates={source!r}, expected one of {", ".join(TEMPLATES)}, a list of templates, '
                             'FILE.json, or FILE.json:KEY')
    content = json.loads(Path(name).read_text('utf-8'))
    if isinstance(content, list) and key is None:
        return content
    if not isinstance(content, dict) or key not in content:
        keys = ', '.join(content) if isinstance(content, dict) else 'none, it holds one list'
        raise ValueError(f'{name}: no key {key!r}; keys: {keys}')
    return content[key]


def fill(template: str, name: str) -> str:
    """Fill a class name and its article into a template."""
    return template.replace('{a}', 'an' if name[:1].lower() in 'aeiou' else 'a').replace('{}', name)
