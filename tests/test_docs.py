"""Configs that the documentation shows."""
import re

import pytest

from clipgs_plugin import get_config
from clipgs_plugin.registry import METRICS, MODELS

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
