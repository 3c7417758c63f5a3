"""ModelNet in its three layouts, its splits, and a training of a classifier on it."""
import csv
import json
import multiprocessing as mp

import h5py
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer

from clipgs_plugin.datasets import ModelNetGaussians
from clipgs_plugin.structures import surface_discs
from clipgs_plugin.structures.normals import estimate_normals
from clipgs_plugin.tools import test as test_tool
from clipgs_plugin.tools import train as train_tool

CLASSES = ('bed', 'night_stand', 'sofa')
PACK = [dict(type='PackGaussians')]


def shapes(n, points=40, seed=0):
    """Ellipsoids whose proportions are those of their class, with normals, as (n, N, 3) each and (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(CLASSES)
    unit = rng.normal(size=(n, points, 3))
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    axes = np.array([[1, 0.2, 1], [0.3, 1, 0.3], [1, 1, 1]])[labels][:, None]
    normals = unit / axes
    return (unit * axes).astype(np.float32), (normals / np.linalg.norm(normals, axis=2, keepdims=True)).astype(
        np.float32), labels


def names_of(labels, part):
    return [f'{CLASSES[label]}_{i:04d}' for i, label in enumerate(labels, 1000 * (part == 'test'))]


def write_npz(root, n=30, n_test=7):
    for part, count in (('train', n), ('test', n_test)):
        points, _, labels = shapes(count, seed=len(part))
        np.savez(root / f'{part}.npz', points=points.astype(np.float16), labels=labels, classes=np.array(CLASSES),
                 names=np.array(names_of(labels, part)))


def write_txt(root, n=12, count=10):
    (root / f'modelnet{count}_shape_names.txt').write_text('\n'.join(CLASSES) + '\n')
    for part in ('train', 'test'):
        points, normals, labels = shapes(n, seed=len(part))
        names = names_of(labels, part)
        (root / f'modelnet{count}_{part}.txt').write_text('\n'.join(names) + '\n')
        for name, label, table in zip(names, labels, np.concatenate([points, normals], 2)):
            (root / CLASSES[label]).mkdir(exist_ok=True)
            np.savetxt(root / CLASSES[label] / f'{name}.txt', table, delimiter=',', fmt='%.6f')


def write_h5(root):
    (root / 'shape_names.txt').write_text('\n'.join(CLASSES))
    for part in ('train', 'test'):
        points, normals, labels = shapes(12, seed=len(part))
        for i in range(2):
            with h5py.File(root / f'ply_data_{part}{i}.h5', 'w') as file:
                file.update(data=points[i::2], normal=normals[i::2], label=labels[i::2, None].astype(np.uint8))


def uids(dataset):
    return [dataset[i]['data_samples']['uid'] for i in range(len(dataset))]


def test_splits_are_disjoint_cover_the_training_part_and_leave_the_test_alone(tmp_path):
    write_npz(tmp_path)
    found = {split: ModelNetGaussians(tmp_path, split, PACK) for split in ('train', 'val', 'trainval', 'test')}
    train, val, both, test = (set(uids(found[split])) for split in found)
    assert not train & val and train | val == both and len(both) == 30 and len(val) == 3
    assert not test & both and len(test) == 7
    labels = [found['val'][i]['data_samples']['label'] for i in range(3)]
    assert labels == [0, 1, 2] and found['val'].classes == ['bed', 'night stand', 'sofa']
    assert set(uids(ModelNetGaussians(tmp_path, 'val', PACK, seed=9))) == val  # the seed does not move it


def test_a_part_of_each_class_is_drawn_with_the_seed(tmp_path):
    write_npz(tmp_path, n=60)
    draws = [ModelNetGaussians(tmp_path, 'train', PACK, per_class=4, seed=seed) for seed in (0, 0, 1)]
    labels = [draws[0][i]['data_samples']['label'] for i in range(len(draws[0]))]
    assert labels == [0] * 4 + [1] * 4 + [2] * 4
    assert uids(draws[0]) == uids(draws[1]) != uids(draws[2])


def test_classes_are_chosen_and_labelled_in_order(tmp_path):
    write_npz(tmp_path)
    dataset = ModelNetGaussians(tmp_path, 'test', PACK, classes=['sofa', 'bed'])
    samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
    assert {(sample['category'], sample['label']) for sample in samples} == {('sofa', 0), ('bed', 1)}
    assert len(samples) == 5 and all(sample['uid'].startswith(sample['category']) for sample in samples)


def test_an_object_is_grey_discs_on_its_points(tmp_path):
    write_npz(tmp_path)
    cloud = ModelNetGaussians(tmp_path, 'test', PACK)[0]['inputs']
    with np.load(tmp_path / 'test.npz') as arrays:
        points = arrays['points'][0].astype(np.float32)
    expected = surface_discs(points, estimate_normals(points, points), np.full((40, 3), 0.4))
    for name in ('means', 'quats', 'log_scales', 'opacity_logits', 'sh'):
        assert torch.equal(getattr(cloud, name), getattr(expected, name)), name
    torch.testing.assert_close(cloud.rgb, torch.full((40, 3), 0.4))


@pytest.mark.parametrize('write', [write_txt, write_h5])
def test_normals_of_the_files_orient_the_discs(tmp_path, write):
    write(tmp_path)
    points, normals, labels = shapes(12, seed=len('test'))
    dataset = ModelNetGaussians(tmp_path, 'test', PACK)
    assert len(dataset) == 12
    for i in range(len(dataset)):
        item = dataset[i]
        cloud = item['inputs']
        row = np.abs(points - cloud.means.numpy()).max((1, 2)).argmin()
        assert labels[row] == item['data_samples']['label']
        torch.testing.assert_close(cloud.rotations[..., 2], torch.from_numpy(normals[row]), atol=1e-4, rtol=0)


def test_points_are_drawn_anew_each_epoch_and_farthest_in_test_mode(tmp_path):
    write_txt(tmp_path)
    train, test = (ModelNetGaussians(tmp_path, 'train', PACK, num_points=16, test_mode=mode) for mode in (False, True))
    first, again, later = (train[epoch, 0]['inputs'].means for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later) and len(first) == 16
    spread = [torch.cdist(means, means).fill_diagonal_(9).min() for means in (test[0, 0]['inputs'].means, first)]
    assert torch.equal(test[0, 0]['inputs'].means, test[1, 0]['inputs'].means) and spread[0] > spread[1]


def test_faults_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'neither train.npz, nor modelnet40_shape_names.txt'):
        ModelNetGaussians(tmp_path)
    write_npz(tmp_path)
    for options, match in ((dict(split='valid'), "split='valid'"), (dict(num_classes=40), 'has 3 classes'),
                           (dict(per_class=0), 'per_class=0'), (dict(classes=['boat']), 'boat')):
        with pytest.raises(ValueError, match=match):
            ModelNetGaussians(tmp_path, **options)
    np.savez(tmp_path / 'train.npz', points=np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r'train.npz lacks the arrays classes, labels, names'):
        ModelNetGaussians(tmp_path)


def test_the_real_modelnet10_has_its_official_split(data):
    found = {split: ModelNetGaussians(data / 'modelnet10', split, PACK) for split in ('trainval', 'val', 'test')}
    assert [len(dataset) for dataset in found.values()] == [3991, 399, 908]
    assert found['test'].classes[6] == 'night stand'
    cloud = found['test'][0]['inputs']
    assert len(cloud) == 1024 and float(cloud.means.norm(dim=1).max()) < 1.01


@pytest.fixture
def runs_apart():
    """Undo what a Runner changes in its process."""
    method, scopes = mp.get_start_method(allow_none=True), dict(DefaultScope._instance_dict)
    forget_runs()
    yield
    forget_runs()
    mp.set_start_method(method, force=True)
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


def forget_runs():
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()


@pytest.mark.filterwarnings('ignore')
def test_the_shipped_config_trains_and_the_confusion_of_its_test_is_written(tmp_path, capfd, runs_apart):
    data, config = tmp_path / 'data', 'classifier_pointbert-nano_50e_modelnet10'
    data.mkdir()
    write_npz(data, n=36, n_test=7)
    settings = ['--cfg-options', f'data_root={data}', 'warmup=1', 'train_cfg.max_epochs=2', 'train_cfg.val_interval=2',
                'model.num_classes=3', 'train_dataloader.batch_size=9', 'test_dataloader.batch_size=5',
                'model.encoder.tokenizer.num_groups=4', 'model.encoder.tokenizer.group_size=8',
                'model.encoder.backbone.depth=1']
    assert train_tool.main([config, '--work-dir', str(tmp_path / 'run'), *settings]) == 0
    capfd.readouterr()
    forget_runs()
    assert test_tool.main([str(tmp_path / 'run' / f'{config}.py'), str(tmp_path / 'run' / 'epoch_2.pth'),
                           '--work-dir', str(tmp_path / 'test'), '--json']) == 0
    metrics = json.loads(capfd.readouterr().out)
    with (tmp_path / 'test' / 'confusion_test.csv').open(newline='') as file:
        head, *rows = csv.reader(file)
    assert head == ['', 'bed', 'night stand', 'sofa'] and [row[0] for row in rows] == head[1:]
    counts = np.array([row[1:] for row in rows], int)
    assert counts.sum(1).tolist() == [3, 2, 2]
    assert metrics['accuracy/top1'] == pytest.approx(100 * np.trace(counts) / 7)
    assert (tmp_path / 'run' / 'confusion_val.json').is_file()
