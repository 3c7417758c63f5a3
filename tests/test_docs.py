"""Configs, commands and code that the documentation shows."""
import argparse
import ast
import importlib
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytorch3d_stand_in
from mmengine.config import Config

from clipgs_plugin import get_config, write_gaussians
from clipgs_plugin.generation import GenerationSettings
from clipgs_plugin.registry import METRICS, MODELS
from clipgs_plugin.tools import embed, make_triplets
from clipgs_plugin.toy_world.writing import export_files

PAGES = ['README.md', 'docs/backbones.md', 'docs/way_of_the_data.md']


def shown_configs(root, page):
    return [block for block in re.findall(r'```python\n(.*?)```', (root / page).read_text(encoding='utf-8'), re.DOTALL)
            if '_base_ =' in block]


@pytest.fixture
def beside_configs(root, tmp_path):
    """A folder in which ``configs/`` lies as it does in the checkout."""
    (tmp_path / 'configs').symlink_to(root / 'configs')
    return tmp_path


@pytest.mark.parametrize('page', PAGES)
def test_shown_configs_load_and_build(root, beside_configs, page):
    blocks = shown_configs(root, page)
    assert blocks
    for block in blocks:
        (beside_configs / 'mine.py').write_text(block)
        cfg = get_config(beside_configs / 'mine.py')
        assert MODELS.build(cfg.model).encoder.embed_dim == cfg.model.encoder.embed_dim


def test_the_config_of_another_teacher_leaves_nothing_of_the_old_one(root, beside_configs):
    block, = (block for block in shown_configs(root, 'docs/way_of_the_data.md') if 'teacher' in block)
    (beside_configs / 'mine.py').write_text(block)
    cfg = get_config(beside_configs / 'mine.py')
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert (dataset.root, dataset.features) == ('data/mine', 'ViT-B-32-openai') and dataset.split == part
    for metrics in (cfg.val_evaluator, cfg.test_evaluator):
        zero_shot, = (METRICS.build(metric) for metric in metrics if metric.type == 'ZeroShotAccuracy')
        assert zero_shot.teacher == cfg.teacher
    assert 'toy-clip' not in str((cfg.teacher, cfg.model, cfg.train_dataloader, cfg.val_evaluator, cfg.test_dataloader))


def test_the_config_that_trains_on_triplets_has_one_teacher_throughout(root, beside_configs):
    block, = (block for block in shown_configs(root, 'docs/triplets.md') if 'model =' in block)
    (beside_configs / 'mine.py').write_text(block)
    cfg = get_config(beside_configs / 'mine.py')
    assert MODELS.build(cfg.model).encoder.embed_dim == 512 and cfg.teacher.model == 'vit-b-32-openai'
    for part in ('train', 'val', 'test'):
        assert cfg[f'{part}_dataloader'].dataset.features == 'vit-b-32-openai'
    assert 'toy-clip' not in str((cfg.teacher, cfg.model, cfg.train_dataloader, cfg.val_evaluator, cfg.test_dataloader))


def test_the_config_of_generation_is_understood(root, beside_configs):
    first, second = (block for block in re.findall(r'```python\n(.*?)```', (root / 'docs' / 'triplets.md').read_text(),
                                                   re.DOTALL) if 'generation' in block and 'import' not in block)
    (beside_configs / 'mine.py').write_text(first + second)
    settings = GenerationSettings.from_config(Config.fromfile(beside_configs / 'mine.py').generation)
    assert settings.views.num_views == 24


ROOT = Path(__file__).parents[1]
DOCUMENTS = ['README.md', *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md')))]


def commands(page):
    """Lines of shell blocks, and commands within the text, without comments."""
    text = (ROOT / page).read_text(encoding='utf-8')
    lines = [line for block in re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
             for line in block.replace('\\\n', ' ').splitlines()]
    prose = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
    for start, command in re.findall(r'`(python |bash )?(tools/\w+\.(?:py|sh)\s[^`]*)`', prose):
        lines.append(f'{start or "python "}{command}')
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def scripts(page):
    """Programs that a page names, by their paths."""
    return set(re.findall(r'\btools/(?:\w+/)*\w+\.(?:py|sh)\b', (ROOT / page).read_text(encoding='utf-8')))


class Parsed(Exception):
    """Arguments were understood; the program goes no further."""


@pytest.mark.parametrize('page', DOCUMENTS)
def test_shown_commands_are_understood(page, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    for words in commands(page):
        words = [re.sub(r'^\$[A-Z_]+$', '1', word) for word in words if not re.match(r'[A-Z_]+=', word)]
        if words[0] == 'python':
            program = importlib.import_module('clipgs_plugin.tools.' + words[1][6:-3].replace('/', '.'))
            with pytest.raises(Parsed):
                program.main(words[2:])
        elif words[0] == 'bash':
            assert (ROOT / words[1]).is_file()
            options = (ROOT / words[1]).read_text(encoding='utf-8')
            assert all(word in options for word in words[2:] if word.startswith('--'))
        else:
            pytest.fail(f'{page} shows {words}, which this test does not know how to check')


@pytest.mark.parametrize('page', DOCUMENTS)
def test_named_programs_exist(page):
    assert not {name for name in scripts(page) if not (ROOT / name).is_file()}


def test_every_program_is_documented():
    named = set().union(*map(scripts, DOCUMENTS))
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / 'tools').glob('[a-z]*.py')} <= named


PATTERNS = ('CHANGELOG.md', 'configs/*/README.md', 'clipgs_plugin/weights/*/README.md')
LINKING = DOCUMENTS + [path.relative_to(ROOT).as_posix() for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]


@pytest.mark.parametrize('page', LINKING)
def test_links_lead_to_files(page):
    text = re.sub(r'```.*?```', '', (ROOT / page).read_text(encoding='utf-8'), flags=re.DOTALL)
    targets = [target.partition('#') for target in re.findall(r'\]\(([^)\s]+)\)', text) if '://' not in target]
    for path, _, anchor in targets:
        linked = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert linked.exists(), path
        if anchor:
            headings = re.findall(r'^#+ (.*)$', linked.read_text(encoding='utf-8'), re.MULTILINE)
            assert anchor in {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}, anchor


@pytest.fixture
def with_files(page, tmp_path, monkeypatch, random_cloud):
    """The working folder of a reader who has the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    for name in ('chair.ply', 'mug.spz'):
        write_gaussians(random_cloud(2000), name)
    if page == 'docs/pytorch3d.md' and not find_spec('pytorch3d'):
        pytorch3d_stand_in.install(monkeypatch)
    if page == 'docs/search.md':
        embed.main(['chair.ply', 'mug.spz', '-o', 'work_dirs/index'])
    if page == 'docs/triplets.md':
        make_triplets.main(['mug.spz', 'data/triplets', '--preset', 'draft', '--workers', '1'])


# Blocks that need files which do not ship: published weights, captions of a model.
NEEDS_FILES = ('checkpoints/', 'generation[')
# Packages of extras, which a page is about.
EXTRAS = {'docs/torch_geometric.md': ('torch_geometric', 'yacs'), 'docs/search.md': ('lancedb', 'qdrant_client')}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('page', DOCUMENTS)
def test_shown_code_runs(page, with_files):
    for package in EXTRAS.get(page, ()):
        pytest.importorskip(package)
    text, names = (ROOT / page).read_text(encoding='utf-8'), {'__name__': 'shown'}
    for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL):
        tree = ast.parse(block)
        if '_base_' in block or any(mark in block for mark in NEEDS_FILES) or 'import' not in block:
            tree.body = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(tree, page, 'exec'), names)


def test_the_example_files_of_the_quickstart_have_the_names_that_are_shown(tmp_path):
    written = {Path(path).name for path in export_files(tmp_path, 9)}  # the default of make_toy_world.py
    shown = {Path(word).name for words in commands('README.md') for word in words if 'quickstart/files/' in word}
    assert shown and shown <= written
