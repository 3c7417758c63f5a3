import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch.utils.data import DataLoader

from clipgs_plugin import engine


def checkpoint(path, age=0, whole=True):
    torch.save({'x': torch.zeros(1000)}, path)
    if not whole:
        path.write_bytes(path.read_bytes()[:-500])
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_latest_is_the_one_last_written_even_beside_leftovers_of_a_longer_run(tmp_path):
    checkpoint(tmp_path / 'epoch_20.pth')
    last = checkpoint(tmp_path / 'epoch_5.pth', age=1)
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/trained/epoch_5.pth')
    assert engine.latest_checkpoint(tmp_path) == last


@pytest.mark.parametrize('pointer', ['epoch_4.pth', 'epoch_3.pth', '', None, 'epoch_\xff\xfe.pth', 'a\0b', 300 * 'x'])
def test_cut_off_checkpoints_are_passed_over(tmp_path, pointer):
    checkpoint(tmp_path / 'epoch_1.pth', age=3)
    newest_whole = checkpoint(tmp_path / 'epoch_2.pth', age=2)
    checkpoint(tmp_path / 'epoch_3.pth', whole=False)
    checkpoint(tmp_path / 'best_top1_epoch_2.pth')
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_bytes(pointer.encode('latin-1'))
    assert engine.latest_checkpoint(tmp_path) == newest_whole


@pytest.mark.parametrize('drop_last', [True, False])
def test_fewer_objects_than_a_batch_that_are_dropped_are_named(drop_last):
    loader = DataLoader(range(20), batch_size=32, drop_last=drop_last)
    runner = SimpleNamespace(train_loop=SimpleNamespace(dataloader=loader))
    refused = pytest.raises(ValueError, match='20 training objects do not fill a batch of 32')
    with refused if drop_last else nullcontext():
        engine.check_batches(runner)


def test_nothing_to_resume_keeps_the_weights_to_start_from(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='pretrained.pth', resume=True))
    engine.resume(cfg, 'auto')
    assert cfg.load_from == 'pretrained.pth' and cfg.resume is False
    assert engine.latest_checkpoint(tmp_path / 'missing') is None
    path = checkpoint(tmp_path / 'epoch_1.pth')
    engine.resume(cfg, 'auto')
    assert cfg.load_from == str(path) and cfg.resume is True


def test_work_dir_comes_from_the_command_line_then_the_config_then_its_name(tmp_path):
    plain, own = tmp_path / 'plain.py', tmp_path / 'own.py'
    plain.write_text('x = 1')
    own.write_text("work_dir = 'elsewhere'")
    assert engine.load_config(plain).work_dir == os.path.join('work_dirs', 'plain')
    assert engine.load_config(own).work_dir == 'elsewhere'
    assert engine.load_config(own, 'here').work_dir == 'here'
    assert engine.load_config(plain, options={'x': 2}).x == 2


@pytest.mark.parametrize('name', ['adamw_20e', 'adamw_100e', 'adamw_200e'])
def test_schedules_and_runtime_load(root, name):
    cfg = Config.fromfile(root / 'configs' / '_base_' / 'schedules' / f'{name}.py')
    assert cfg.train_cfg.max_epochs == int(name[6:-1]) and cfg.train_cfg.by_epoch
    assert cfg.optim_wrapper.constructor == 'clipgs_plugin.CLIPGSOptimWrapperConstructor'
    engine.use_autocast(cfg)
    assert cfg.optim_wrapper.type == 'clipgs_plugin.AutocastOptimWrapper'
    engine.use_autocast(cfg)
    assert cfg.optim_wrapper.type == 'clipgs_plugin.AutocastOptimWrapper'


def test_the_seed_of_a_run_is_that_of_its_training_data_unless_it_has_one():
    name = 'clipgs_pointbert-nano_15e_toy-world'
    cfg = engine.load_config(name, options={'randomness.seed': 7})
    assert cfg.train_dataloader.dataset.seed == 7
    assert 'seed' not in cfg.val_dataloader.dataset and 'seed' not in cfg.test_dataloader.dataset
    own = engine.load_config(name, options={'randomness.seed': 7, 'train_dataloader.dataset.seed': 3})
    assert own.train_dataloader.dataset.seed == 3


@pytest.mark.parametrize('name', ['clipgs_pointbert-nano_15e_toy-world', 'clipgs_pointbert-nano_15e_triplets'])
def test_the_datasets_follow_the_data_root(name, tmp_path):
    plain, moved = engine.load_config(name), engine.load_config(name, options={'data_root': str(tmp_path)})
    assert {moved[f'{part}_dataloader'].dataset.root for part in ('train', 'val', 'test')} == {str(tmp_path)}
    for part in ('train', 'val', 'test'):
        moved[f'{part}_dataloader'].dataset.root = plain[f'{part}_dataloader'].dataset.root
    assert moved.pop('data_root') == str(tmp_path) and plain.pop('data_root')
    assert moved.to_dict() == plain.to_dict()


def test_the_data_root_moves_what_lies_below_it_alone(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text("data_root = 'a'\ntrain_dataloader = dict(dataset=dict(type='X', root='a/train'))\n"
                    "val_dataloader = dict(dataset=dict(type='X', root='ab'))\ntest_dataloader = None\n")
    cfg = engine.load_config(path, options={'data_root': 'b/c'})
    assert cfg.train_dataloader.dataset.root == 'b/c/train' and cfg.val_dataloader.dataset.root == 'ab'
    path.write_text('x = 1')
    with pytest.raises(ValueError, match='data_root=b moves the datasets below data_root, which this config does not'):
        engine.load_config(path, options={'data_root': 'b'})


def test_a_name_that_a_dumped_config_does_not_follow_is_refused(tmp_path):
    name = 'clipgs_pointbert-nano_15e_toy-world'
    path = tmp_path / 'dumped.py'
    engine.load_config(name).dump(path)
    moved = engine.load_config(path, options={'data_root': str(tmp_path)})
    assert moved.train_dataloader.dataset.root == moved.test_dataloader.dataset.root == str(tmp_path)
    reason = r"teacher_name=x has no effect on .*teacher\.model, .*train_dataloader\.dataset\.features.*'toy-clip'"
    with pytest.raises(ValueError, match=reason):
        engine.load_config(path, options={'teacher_name': 'x'})
    assert engine.load_config(name, options={'teacher_name': 'x'}).teacher.model == 'x'
    assert engine.load_config(path, options={'log_level': 'WARNING'}).log_level == 'WARNING'


def test_data_that_are_not_there_are_named_before_anything_is_built(tmp_path):
    cfg = engine.load_config('clipgs_pointbert-nano_15e_toy-world',
                             options={f'{part}_dataloader.dataset.root': str(tmp_path) for part in ('train', 'val')})
    engine.check_data(cfg, ('train', 'val'))
    cfg.val_dataloader.dataset.root = str(tmp_path / 'absent')
    reason = r'folder of the val data, .*absent, does not exist.* data_root=FOLDER .*CLIPGS_TOY_WORLD'
    with pytest.raises(FileNotFoundError, match=reason):
        engine.check_data(cfg, ('train', 'val'))
    engine.check_data(Config(dict(train_dataloader=dict(dataset=dict(type='Mine')))), ('train', 'val'))
