"""The layout of docs/design.md §2: imports run one way, without circles; folders, files and functions stay small."""
import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT, run_python

# Folders of the library; a module imports from folders before its own, and from its own.
ORDER = ['version', 'registry', 'ops', 'structures', 'io', 'parallel', 'visualization', 'triplets', 'models',
         'datasets', 'evaluation', 'search', 'scenes', 'generation', 'apis', 'app', 'engine', 'toy_world', 'geometric',
         'tools']
# Imported by programs only: the factory, the toy world and torch-geometric's side, which stand beside the library.
APART = ['generation', 'toy_world', 'geometric']
# A module in a folder that comes earlier: users of GraphGym import it, and nothing else does.
GRAPHGYM = 'registry.geometric'
KERNELS = 'clipgs_plugin/ops/kernels/'
MAX_FILE, MAX_FUNCTION, MAX_SHARE = 400, 60, 0.25


def name_of(path: Path) -> str:
    """The module of a source file, without the package's name."""
    parts = path.relative_to(ROOT).with_suffix('').parts
    parts = parts[1:] if parts[0] == 'clipgs_plugin' else parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


SOURCES = sorted(path for folder in ('clipgs_plugin', 'registry', 'tools') for path in (ROOT / folder).rglob('*.py'))
MODULES = {name_of(path): path for path in SOURCES if name_of(path)}


def folder_of(name: str) -> str:
    return 'geometric' if name == GRAPHGYM else name.partition('.')[0]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports at any place but under ``TYPE_CHECKING``."""
    found, skipped = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            skipped.update(child for statement in node.body for child in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                below = f'{node.module}.{alias.name}'
                found.add(below if below.removeprefix('clipgs_plugin.') in MODULES else node.module)
    return {name.removeprefix('clipgs_plugin.') for name in found if name.startswith('clipgs_plugin.')} & set(MODULES)


IMPORTS = {name: imports(path) for name, path in MODULES.items()}


def test_every_folder_has_its_place_in_the_order():
    assert {folder_of(name) for name in MODULES} == set(ORDER)


def test_imports_run_one_way():
    wrong = [f'{name} imports {other}' for name, found in IMPORTS.items() for other in sorted(found)
             if ORDER.index(folder_of(other)) > ORDER.index(folder_of(name))]
    assert not wrong


@pytest.mark.parametrize('folder', APART)
def test_only_programs_import(folder):
    wrong = [f'{name} imports {other}' for name, found in IMPORTS.items() for other in sorted(found)
             if folder_of(other) == folder and folder_of(name) not in (folder, 'tools')]
    assert not wrong


def test_no_circles():
    """Not even by imports inside functions; a package's ``__init__`` only gathers names of the modules below it."""
    graph = {name: {other for other in found if MODULES[other].name != '__init__.py'}
             for name, found in IMPORTS.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_only_its_own_side_imports_torch_geometric():
    wrong = [name for name, path in MODULES.items() if folder_of(name) != 'geometric'
             and re.search(r'^\s*(import|from) torch_geometric', path.read_text(encoding='utf-8'), re.MULTILINE)]
    assert not wrong


def test_the_datasets_load_nothing_of_the_factory():
    code = ('import sys, clipgs_plugin.datasets, clipgs_plugin.triplets\n'
            'print([name for name in sys.modules if name.startswith(("clipgs_plugin.generation", '
            '"clipgs_plugin.toy_world", "clipgs_plugin.models"))])')
    assert run_python(code) == '[]'


def test_folders_files_and_functions_stay_small():
    lines = {path: path.read_text(encoding='utf-8').count('\n') for path in SOURCES}
    for folder in ORDER:
        share = sum(count for path, count in lines.items()
                    if folder_of(name_of(path)) == folder) / sum(lines.values())
        assert share < MAX_SHARE, f'{folder} has {share:.1%} of the code'
    large = [f'{path.relative_to(ROOT)}: {count} lines' for path, count in lines.items() if count > MAX_FILE]
    assert not large
    for path in SOURCES:
        if path.relative_to(ROOT).as_posix().startswith(KERNELS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < MAX_FUNCTION, f'{path.relative_to(ROOT)}: {node.name}'
