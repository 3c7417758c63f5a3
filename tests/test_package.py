"""The package as it is installed: every folder listed, nothing done at import, registries found by name."""
import ast
import configparser
import email
import importlib
import re
import runpy
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

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
    'clipgs-search': ['absent.npz', '--text', 'x'], 'clipgs-classify': ['absent.ply', '--classes', 'mug,car'],
    'clipgs-serve': ['absent.npz'], 'clipgs-gallery': ['absent.npz'],
    'clipgs-convert': ['absent.ply', 'x.ply'],
    'clipgs-convert-checkpoint': ['absent.pth', 'x.safetensors'], 'clipgs-triplets': ['absent.dir', 'x'],
    'clipgs-inspect': ['absent.dir'], 'clipgs-features': ['absent.dir'],
    'clipgs-scenes': ['x', '--meshes', 'absent.dir'],
    'clipgs-toy-world': ['x', '--size', 'absent.px'], 'clipgs-list-backbones': ['absent.name'],
    'clipgs-list-models': ['absent.name'], 'clipgs-list-datasets': ['absent.name'],
    'clipgs-share': ['absent.py', 'absent.pth', 'x'], 'clipgs-export': ['absent.name', 'x.pt2'],
    'clipgs-report': ['absent.dir'], 'clipgs-table': ['absent.table'], 'clipgs-benchmark': ['absent.benchmark'],
    'clipgs-download': ['absent.name'], 'clipgs-few-shot': ['absent.py'],
    'clipgs-doctor': ['absent.ply', '--model', 'absent.model'],
    'clipgs-label-scene': ['absent.ply', '-o', 'absent.out']}


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
        if 'geometric' in path.parts:
            continue  # imported on request only
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


@pytest.fixture(scope='module')
def built(root, tmp_path_factory):
    """Build both distributions; return the unpacked sources, the names in the wheel, and its metadata."""
    folder = tmp_path_factory.mktemp('built')
    shutil.copytree(root, folder / 'tree', ignore=shutil.ignore_patterns(
        '.git', '.venv*', '.*_cache', '__pycache__', 'work_dirs', '*.egg-info', 'build', 'dist'))
    code = """
from setuptools import build_meta
print(build_meta.build_sdist('dist'))
"""
    source = run_python(code, folder / 'tree').splitlines()[-1]
    with tarfile.open(folder / 'tree' / 'dist' / source) as archive:
        archive.extractall(folder, filter='data')
    unpacked = folder / source.removesuffix('.tar.gz')
    code = code.replace('sdist', 'wheel')  # of the sources that are distributed
    with zipfile.ZipFile(unpacked / 'dist' / run_python(code, unpacked).splitlines()[-1]) as archive:
        archive.extractall(folder / 'installed')
        metadata, = (name for name in archive.namelist() if name.endswith('dist-info/METADATA'))
        return unpacked, set(archive.namelist()), email.message_from_bytes(archive.read(metadata))


def test_the_source_distribution_has_the_tests_the_documents_and_what_they_need(root, built):
    unpacked, _, _ = built
    folders = ('.ci', 'clipgs_plugin', 'configs', 'docs', 'examples', 'registry', 'tests', 'tools')
    tracked = [path.relative_to(root) for folder in folders
               for path in (root / folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts]
    tops = ('CHANGELOG.md', 'CITATION.cff', 'LICENSE', 'README.md', 'mkdocs.yml', 'pyproject.toml', 'setup.cfg',
            'setup.py')
    assert not [str(path) for path in (*tracked, *map(Path, tops)) if not (unpacked / path).is_file()]
    done = run_python('import sys, pytest; sys.exit(pytest.main(["-q", "tests/test_architecture.py"]))', unpacked,
                      PYTHONPATH=str(unpacked))
    assert 'passed' in done


def test_the_wheel_has_the_code_and_its_data_only(root, built):
    _, names, _ = built
    parts = {'clipgs_plugin': 'clipgs_plugin',
             **{folder: package.replace('.', '/') for folder, package in MAPPED.items()}}
    expected = {f'{package}/{path.relative_to(root / folder).as_posix()}' for folder, package in parts.items()
                for path in (root / folder).rglob('*') if path.is_file() and '__pycache__' not in path.parts}
    shipped = {name for name in names if '.dist-info/' not in name}
    assert {name for name in expected if not name.endswith('.sh')} == shipped


def test_configs_of_the_wheel_are_bases_of_configs_elsewhere(built, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = 'clipgs_plugin::quickstart/clipgs_pointbert-nano_15e_toy-world.py'\n"
                                      "data_root = 'data/mine'\n")
    code = '''
import sys
sys.modules['pkg_resources'] = None  # newer setuptools do not have it
import clipgs_plugin
from mmengine.registry import MODELS, DefaultScope
cfg = clipgs_plugin.get_config('mine.py')
with DefaultScope.overwrite_default_scope('mmengine'):
    model = MODELS.build(cfg.model)
print(clipgs_plugin.__path__[0], cfg.train_dataloader.dataset.root, type(model).__name__)
'''
    installed = built[0].parent / 'installed'
    assert run_python(code, tmp_path, PYTHONPATH=str(installed)) == f'{installed}/clipgs_plugin data/mine CLIPGS'


def test_the_metadata_name_no_file_of_the_repository_by_a_relative_link(built):
    metadata = built[2]
    assert {f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)} <= set(
        metadata.get_all('Classifier'))
    assert any(url.startswith('Paper, https://') for url in metadata.get_all('Project-URL'))
    description = metadata.get_payload()
    assert description.lstrip().startswith('# clipgs_plugin')
    assert not [link for link in re.findall(r'\]\(([^)]*)\)', description) if not link.startswith('https://')]


def test_the_address_in_setup_cfg_makes_links_and_pictures_absolute(root, tmp_path, monkeypatch):
    import setuptools
    for name in ('setup.py', 'README.md'):
        shutil.copy(root / name, tmp_path)
    settings = (root / 'setup.cfg').read_text(encoding='utf-8')
    address = 'https://example.org/clipgs'
    given = re.sub(r'(?m)^(\[repository]\nurl) =.*$', rf'\1 = {address}/', settings)
    (tmp_path / 'setup.cfg').write_text(given, encoding='utf-8')
    found = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **options: found.update(options))
    runpy.run_path(str(tmp_path / 'setup.py'))
    assert found['project_urls']['Source'] == address
    text = found['long_description']
    assert f'![Text queries and the splats they find]({address}/raw/main/docs/images/' in text
    links = re.findall(r'\]\(([^)]*)\)', text)
    assert len(links) > 10 and all(link.startswith('https://') for link in links)


def test_no_text_installs_the_package_by_a_name_that_no_index_has(root):
    texts = [root / 'README.md']
    for folder in ('clipgs_plugin', 'registry', 'tools', 'docs'):
        texts += [path for path in (root / folder).rglob('*') if path.suffix in ('.py', '.md', '.yml', '.sh')]
    told = [f'{path.relative_to(root)}: {line.strip()}' for path in texts
            for line in path.read_text(encoding='utf-8').splitlines() if re.search(r'pip install\W+clipgs', line)]
    assert len(texts) > 100 and not told
