"""An extension of griffe for mkdocs.yml: roles and formulas of docstrings in Markdown."""
from __future__ import annotations

import re

import griffe

ROLE = re.compile(r':(?:class|func|meth|mod|attr|data|obj|math):`~?([^`]+)`')
FORMULA = re.compile(r'^( *)\.\. math::\s*(.*(?:\n\1 +\S.*)*)', re.MULTILINE)
EXAMPLE = re.compile(r'\bExample:$', re.MULTILINE)


class DocstringMarkup(griffe.Extension):
    """Roles become code, formulas blocks of LaTeX, and an example a section that griffe knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring:
            text = FORMULA.sub(_block, obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub('Examples:', ROLE.sub(r'`\1`', text))


def _block(match: re.Match) -> str:
    lines = '\n'.join(f'{match[1]}{line.strip()}' for line in match[2].splitlines())
    return f'{match[1]}```latex\n{lines}\n{match[1]}```'
