"""The recipes of docs/search.md for other databases, as they are shown."""
import ast
import re

import pytest
from conftest import ROOT
from index_files import clustered, write_rows

from clipgs_plugin.search import SearchIndex

RECIPES = {name: block for block in re.findall(r'```py(?:thon)?\n(.*?)```', (ROOT / 'docs' / 'search.md').read_text(
    encoding='utf-8'), re.DOTALL) for name in ('lancedb', 'qdrant_client', 'pymilvus') if f'{name} import' in block
    or f'import {name}' in block}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('package', ['lancedb', 'qdrant_client'])
def test_recipes_find_what_the_index_finds(package, tmp_path, monkeypatch, capsys):
    pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    write_rows('work_dirs/index', clustered(60), first=470)
    names = {}
    exec(RECIPES[package], names)
    index = SearchIndex.load('work_dirs/index')
    expected = index.find(index.vectors([0])[0], 5, 'gaussians>=500')
    found = dict(eval(capsys.readouterr().out))
    assert list(found) == [match.path for match in expected]
    assert list(found.values()) == pytest.approx([match.score for match in expected], abs=1e-5)


def test_recipes_are_short():
    assert len(RECIPES) == 3
    for block in RECIPES.values():
        ast.parse(block)  # also of the one whose package is not installed
        assert len(block.replace('\n\n', '\n').strip().splitlines()) <= 10
