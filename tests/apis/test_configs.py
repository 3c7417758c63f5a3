from pathlib import Path

import mmengine.hooks  # noqa: F401  registers mmengine's hooks, as the Runner of any run does
import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import DefaultScope, Registry

from clipgs_plugin import registry
from clipgs_plugin.apis import get_config, list_configs, list_models
from clipgs_plugin.apis.configs import find_config
from clipgs_plugin.datasets.transforms import build_pipeline


def test_every_shipped_config_loads_and_follows_the_naming_convention():
    names = list_configs()
    assert len(names) == len(set(names)) > 0
    for name in names:
        cfg = get_config(name)
        method = {'clipgs': 'clipgs_plugin.CLIPGS', 'views': 'clipgs_plugin.MultiViewCLIP',
                  'cached': 'clipgs_plugin.CachedViews',
                  'classifier': 'clipgs_plugin.GSClassifier'}[name.split('_')[0].split('-')[0]]
        assert cfg.model.type == method, name
        assert name == name.lower() and len(name.split('_')) >= 4, f'{name}: method_backbone[_init]_schedule_data'


def test_models_with_weights_come_first():
    assert list_models()[0] == 'clipgs_toy'


def test_a_config_is_found_by_path_too(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("model = dict(type='CLIPGS')")
    assert get_config(path).model.type == 'CLIPGS'


PARTS = ('train', 'val', 'test')


def test_a_child_removes_a_loader_of_its_base_with_none(tmp_path):
    (tmp_path / 'base.py').write_text("root = 'a'\nloader = dict(root=root)\nother = {'root': root}")
    (tmp_path / 'mine.py').write_text("_base_ = 'base.py'\nroot = 'b'\nloader = other = None\n")
    (tmp_path / 'moved.py').write_text("_base_ = 'base.py'\nroot = 'b'\nloader = None\n")
    assert (get_config(tmp_path / 'mine.py').loader, get_config(tmp_path / 'mine.py').other) == (None, None)
    moved = get_config(tmp_path / 'moved.py')
    assert moved.loader is None and moved.other.root == 'b'


def dataset_settings(cfg, key):
    return {cfg[f'{part}_dataloader'].dataset.get(key) for part in PARTS}


@pytest.mark.parametrize('by_options', [False, True], ids=['child', 'options'])
@pytest.mark.parametrize('name', ['quickstart/clipgs_pointbert-nano_15e_triplets',
                                  'clipgs/clipgs_uni3d-s_uni3d-init_20e_objaverse',
                                  'backbones/clipgs_openshape_openshape-init_20e_objaverse',
                                  'backbones/clipgs_uni3d-nano_15e_toy-world'])
def test_what_a_child_declares_replaces_what_its_bases_compute_with(name, by_options, tmp_path):
    values = dict(data_root='data/mine', teacher_name='vit-b-32-openai', num_gaussians=77, hold_out=0.3)
    path = tmp_path / 'mine.py'
    declared = {} if by_options else values
    path.write_text(f"_base_ = 'clipgs_plugin::{name}.py'\n" + '\n'.join(f'{k} = {v!r}' for k, v in declared.items()))
    cfg = get_config(path, values if by_options else None)
    assert {key: cfg[key] for key in values} == values
    assert dataset_settings(cfg, 'root') == {'data/mine'}
    assert dataset_settings(cfg, 'features') == {'vit-b-32-openai'} and cfg.teacher.model == 'vit-b-32-openai'
    assert dataset_settings(cfg, 'hold_out') == {0.3}
    assert {step.num for part in PARTS for step in cfg[f'{part}_dataloader'].dataset.pipeline
            if step.type.endswith('SampleGaussians')} == {77}
    for metric in [cfg.val_evaluator] if isinstance(cfg.val_evaluator, dict) else cfg.val_evaluator:
        assert metric.get('teacher', cfg.teacher) == cfg.teacher
    plain = get_config(f'clipgs_plugin::{name}.py')  # nothing of the child stays behind
    assert plain.to_dict() == Config.fromfile(find_config(Path(name).name)).to_dict()


def test_what_a_child_computes_reaches_its_bases(tmp_path, monkeypatch):
    (tmp_path / 'a.py').write_text("root = 'a'\nwidth = 2\nhalf = width / 2\nrate = 1\n"
                                   "data = dict(root=root, width=width, half=half, rate=rate)\n")
    (tmp_path / 'b.py').write_text("_base_ = 'a.py'\nimport os\nroot = os.environ['MY_ROOT'] + '/b'\n"
                                   "more = root + '/x'\nrate = _base_.rate + 1\n")
    (tmp_path / 'c.py').write_text("_base_ = ['b.py']\nwidth = {{_base_.width}}\ntwice = 1\ntwice = twice + 1\n")
    monkeypatch.setenv('MY_ROOT', '/mine')
    cfg = get_config(tmp_path / 'c.py')
    assert cfg.data == dict(root='/mine/b', width=2, half=1, rate=1) and cfg.rate == 2
    assert cfg.more == '/mine/b/x' and cfg.twice == 2
    cfg = get_config(tmp_path / 'c.py', {'root': '/other', 'data.width': 5})
    assert cfg.data == dict(root='/other', width=5, half=1, rate=1) and cfg.more == '/other/x'
    (tmp_path / 'd.py').write_text("_base_ = ['c.py']\nwidth = 8\nroot = 'd'\n")
    cfg = get_config(tmp_path / 'd.py')
    assert cfg.data == dict(root='d', width=8, half=4, rate=1) and cfg.more == 'd/x' and cfg.half == 4


@pytest.mark.parametrize('by_options', [False, True], ids=['child', 'options'])
def test_an_empty_dict_of_a_base_takes_what_is_declared_on_top(tmp_path, by_options):
    (tmp_path / 'base.py').write_text("more = dict()\nfull = dict(a=1)\n"
                                      "data = [dict(root=root, **more) for root in ('x', 'y')]\nother = dict(**full)\n")
    (tmp_path / 'mine.py').write_text("_base_ = 'base.py'\n" + (
        '' if by_options else "more = dict(labels='l.json', lists=('a', 'b'))\nfull = dict(b=2)\n"))
    options = {'more.labels': 'l.json', 'more.lists': ('a', 'b'), 'full.b': 2}
    cfg = get_config(tmp_path / 'mine.py', options if by_options else None)
    expected = dict(labels='l.json', lists=('a', 'b'))
    assert cfg.data == [dict(root='x', **expected), dict(root='y', **expected)] and cfg.more == expected
    assert cfg.full == dict(a=1, b=2) and cfg.other == dict(a=1)  # mmengine merges, as before
    assert 'labels' not in get_config(tmp_path / 'base.py').data[0]


def test_options_of_a_public_set_reach_all_three_parts():
    name = 'clipgs_pointbert-nano_15e_public-set'
    cfg = get_config(name, {'dataset_type': 'clipgs_plugin.ObjaverseLVIS', 'dataset_options.labels': 'lvis.json'})
    assert dataset_settings(cfg, 'labels') == {'lvis.json'}
    assert [cfg[f'{part}_dataloader'].dataset.split for part in PARTS] == ['fit', 'val', 'test']
    assert dataset_settings(get_config(name), 'labels') == {None}


def test_a_config_with_a_syntax_error_is_named(tmp_path):
    (tmp_path / 'a.py').write_text('x = (')
    with pytest.raises(ValueError, match=r'a\.py: a config in its chain is not Python: .*never closed'):
        get_config(tmp_path / 'a.py')


def test_a_shipped_config_is_named_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = 'clipgs_pointbert-nano_15e_toy-world'
    assert get_config(f'clipgs_plugin::quickstart/{name}.py').to_dict() == get_config(name).to_dict()
    Path('mine.py').write_text(f"_base_ = ['clipgs_plugin::quickstart/{name}.py']\nmodel = dict(text_loss=None)")
    expected = get_config(name).to_dict()
    expected['model']['text_loss'] = None
    assert get_config('mine.py').to_dict() == expected
    Path('mine.py').write_text("_base_ = ['clipgs_plugin::quickstart/clipgs_pointbert.py']")
    with pytest.raises(FileNotFoundError, match=f"'clipgs_plugin::quickstart/clipgs_pointbert.py'; close .*{name}"):
        get_config('mine.py')
    with pytest.raises(FileNotFoundError, match='no shipped config'):
        get_config('clipgs_plugin::../registry/__init__.py')
    Path('mine.py').write_text("_base_ = 'another_package::x.py'")
    with pytest.raises(Exception, match=r'external package|does not support'):  # other packages stay mmengine's
        get_config('mine.py')


@pytest.mark.parametrize('name', ['clipgs_pointbert-nano_15e_toy-world', 'clipgs_gaussianmae-nano_15e_toy-world',
                                  'clipgs_pointnet2_15e_toy-world', 'clipgs_openshape-nano_15e_toy-world',
                                  'clipgs_uni3d-nano_15e_toy-world'])
@pytest.mark.parametrize('scope', ['mmengine', 'clipgs_elsewhere'])
def test_shipped_configs_build_under_another_default_scope(name, scope):
    """Another package's run has its own default scope, in which the names of this package mean nothing."""
    elsewhere = Registry('model', parent=registry.MODELS.parent, scope=scope) if scope != 'mmengine' else None
    cfg = get_config(name)
    with DefaultScope.overwrite_default_scope(scope):
        model = MMENGINE_MODELS.build({**cfg.model, 'teacher': None})
        assert type(model).__name__ == 'CLIPGS'
        for part in PARTS:
            loader = cfg[f'{part}_dataloader']
            assert registry.DATASETS.get(loader.dataset.type).__name__ == 'TripletDataset'
            assert registry.DATA_SAMPLERS.get(loader.sampler.type) and registry.FUNCTIONS.get(loader.collate_fn.type)
            assert len(build_pipeline(loader.dataset.pipeline).transforms) == len(loader.dataset.pipeline)
        for hook in cfg.default_hooks.values():
            registry.HOOKS.build(hook)
        for metric in cfg.val_evaluator:
            registry.METRICS.build(metric)
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        assert len(wrapper.param_groups) > 1
        registry.MODELS.build(cfg.teacher)
    if elsewhere is not None:
        del MMENGINE_MODELS.children[scope]


def test_an_unknown_name_lists_similar_ones():
    name = list_configs()[0]
    with pytest.raises(FileNotFoundError, match=name):
        find_config(name[:-2])
    with pytest.raises(FileNotFoundError, match=r'absent\.py does not exist'):
        find_config('absent.py')
