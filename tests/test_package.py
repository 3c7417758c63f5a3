"""The package as it is installed: every folder listed, nothing done at import, registries found by name."""
import ast
import configparser
import importlib
import re
import sys

import pytest
from conftest import run_python

from clipgs_plugin.tools._program import INSTALLED

MAPPED = {'registry': 'clipgs_plugin.registry', 'configs': 'clipgs_plugin.configs', 'tools': 'clipgs_plugin.tools'}


def test_setup_cfg_lists_every_package(root):
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    listed = set(setup['options']['packages'].split())
    found = {'.'.join(path.parent.relative_to(root).parts) for path in root.glob('clipgs_plugin/**/__init__.py')}
    for folder, package in MAPPED.items():
        for path in (root / folder).glob('**/__init__.py'):
            found.add('.'.join((package, *path.parent.relative_to(root / folder).parts)))
    assert listed == found


SCRIPTS = {
    'clipgs-train': ['absent.py'], 'clipgs-test': ['absent.py', 'x.pth'], 'clipgs-embed': ['absent.ply'],
    'clipgs-search': ['absent.npz', '--text', 'x'], 'clipgs-convert': ['absent.ply', 'x.ply'],
    'clipgs-convert-checkpoint': ['absent.pth', 'x.safetensors'], 'clipgs-triplets': ['absent.dir', 'x'],
    'clipgs-inspect': ['absent.dir'], 'clipgs-features': ['absent.dir'],
    'clipgs-toy-world': ['x', '--size', 'absent.px'], 'clipgs-list-backbones': ['absent.name'],
    'clipgs-report': ['absent.dir'], 'clipgs-table': ['absent.table'], 'clipgs-benchmark': ['absent.benchmark']}


@pytest.fixture(scope='module')
def entries(root):
    """Installed programs and the functions that they call."""
    setup = configparser.ConfigParser()
    setup.read(root / 'setup.cfg')
    return dict(line.split(' = ') for line in setup['options.entry_points']['console_scripts'].strip().splitlines())


def test_every_program_is_installed(root, entries):
    programs = {path.stem for path in (root / 'tools').glob('[a-z]*.py')}
    assert entries == {name: f'clipgs_plugin.tools.{program}:cli' for program, name in INSTALLED.items()}
    assert INSTALLED.keys() == programs and entries.keys() == SCRIPTS.keys()


@pytest.mark.parametrize('name', SCRIPTS)
def test_installed_programs_say_what_is_wrong_under_their_own_name(tmp_path, monkeypatch, capsys, entries, name):
    module, _, function = entries[name].partition(':')
    program = getattr(importlib.import_module(module), function)
    monkeypatch.chdir(tmp_path)
    for arguments, codes in ((SCRIPTS[name], (1, 2)), (['--help'], (0,))):
        monkeypatch.setattr(sys, 'argv', [f'/usr/bin/{name}', *arguments])
        with pytest.raises(SystemExit) as stopped:
            program()
        captured = capsys.readouterr()
        assert stopped.value.code in codes and not re.search(r'tools/\w+\.(py|sh)', captured.out + captured.err)
        if arguments == ['--help']:
            assert f'usage: {name} ' in captured.out and f'\n  {name} ' in captured.out
        else:
            assert re.search(r'error: .*absent\.\w+', captured.err.splitlines()[-1])


def test_import_is_light_and_silent(tmp_path):
    code = """
import sys, time, torch
before, started = set(sys.modules), time.perf_counter()
import clipgs_plugin
seconds = time.perf_counter() - started
heavy = {'numba', 'scipy', 'open_clip', 'mmengine', 'torch_geometric', 'pytorch3d', 'matplotlib', 'timm'}
print(seconds < 2, sorted(heavy & (set(sys.modules) - before)))
"""
    assert run_python(code, tmp_path) == 'True []'
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('place', ['checkout', 'elsewhere'])
def test_scoped_names_build_without_a_custom_import(root, tmp_path, place):
    code = """
from mmengine.registry import MODELS
print(type(MODELS.build(dict(type='clipgs_plugin.GSTokenizer', num_groups=8, group_size=4, channels=16))).__name__)
"""
    assert run_python(code, root if place == 'checkout' else tmp_path) == 'GSTokenizer'


def test_every_child_registry_of_mmengine_exists():
    import mmengine.registry as parents

    import clipgs_plugin.registry as children
    names = {name for name, value in vars(parents).items() if isinstance(value, parents.Registry)}
    # mmengine keeps a root and an inferencer registry too; every one that a default_scope looks into must be ours.
    for name in names:
        assert getattr(children, name).scope == 'clipgs_plugin', name


def test_every_registered_type_is_found_by_name(root):
    import clipgs_plugin.registry as registries
    found = 0
    for path in (root / 'clipgs_plugin').rglob('*.py'):
        module = '.'.join(path.relative_to(root).with_suffix('').parts)
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            for decorator in getattr(node, 'decorator_list', ()):
                match = re.fullmatch(r'([A-Z_]+)\.register_module\(\)', ast.unparse(decorator))
                if match:
                    found += 1
                    registry = getattr(registries, match[1])
                    # Only what lies there is imported when a name is looked up first.
                    assert any(f'{module}.'.startswith(f'{place}.') for place in registry._locations), node.name
                    assert registry.get(f'clipgs_plugin.{node.name}') is not None, node.name
    assert found > 30


def test_public_names_exist():
    import clipgs_plugin
    for name in clipgs_plugin.__all__:
        assert getattr(clipgs_plugin, name) is not None
    with pytest.raises(AttributeError, match='no_such_name'):
        clipgs_plugin.no_such_name  # noqa: B018
