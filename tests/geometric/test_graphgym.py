"""GraphGym experiments on Gaussians, from YAML to statistics, and the traps on the way."""
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import random_cloud

from clipgs_plugin import write_gaussians
from clipgs_plugin.triplets import FeatureWriter, ShardReader, ShardWriter

pytest.importorskip('torch_geometric')
pytest.importorskip('yacs')
with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # GraphGym asks for Lightning, which the plain loop does not need
    from clipgs_plugin.geometric.graphgym import run
from torch_geometric.graphgym import register
from torch_geometric.graphgym.loader import create_loader

from clipgs_plugin.registry.geometric import clipgs_accuracy, clipgs_recall

pytestmark = pytest.mark.filterwarnings('ignore:.*pin_memory')
CONTRASTIVE, CLASSES = 'clipgs_graphnet-nano_contrastive_toy-world', 'clipgs_gnn_classification_folder'
SMALL = """
_base_ = 'clipgs_plugin::graphgym/clipgs_graphnet-nano_15e_toy-world.py'
model = dict(encoder=dict(backbone=dict(k=4, widths=(8, 8), embed_dims=16), embed_dim=8))
"""


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def shape(kind, seed):
    """A ball, or a stick."""
    cloud = random_cloud(40, seed=seed)
    return cloud if kind else cloud.replace(means=cloud.means * cloud.means.new_tensor([0.1, 1, 0.1]))


def write_triplets(root, count=12):
    with ShardWriter(root) as writer:
        for i in range(count):
            writer.write(f'o{i}', shape(i % 2, i), np.zeros((1, 4, 4, 3), np.uint8), captions=[f'kind {i % 2}'],
                         category='ab'[i % 2], split=['train', 'train', 'train', 'train', 'val', 'test'][i // 2])
    text = [np.eye(8)[[i % 2]] for i in range(count)]
    FeatureWriter(ShardReader(root), 'toy', 8, 'abc').write(0, np.ones((count, 1, 8)), text)


def small(tmp_path) -> Path:
    (tmp_path / 'small.py').write_text(SMALL)
    return tmp_path / 'small.py'


def write_classes(root):
    for i in range(20):
        path = root / 'ab'[i % 2] / f'{i}.ply'
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(shape(i % 2, i), path)


def test_contrastive_training_finds_the_captions(tmp_path):
    write_triplets(tmp_path / 'triplets')
    found = run(CONTRASTIVE, ['dataset.name', 'triplets', 'clipgs.features', 'toy', 'clipgs.config',
                              str(small(tmp_path)), 'clipgs.gaussians', 32, 'optim.max_epoch', 12, 'optim.base_lr',
                              0.02, 'train.batch_size', 4])
    assert found.keys() == {'train', 'val', 'test'}
    assert found['train']['epoch'] == found['test']['epoch'] == 11
    assert found['test']['clipgs_recall'] == found['val']['clipgs_recall'] == 1.0
    folder = tmp_path / 'work_dirs' / 'graphgym' / CONTRASTIVE
    lines = [json.loads(line) for line in (folder / '0' / 'train' / 'stats.json').read_text().splitlines()]
    assert len(lines) == 12 and lines[-1]['loss'] < lines[0]['loss']
    assert (folder / '0' / 'ckpt' / '11.ckpt').is_file()
    assert yaml.safe_load((folder / 'config.yaml').read_text())['clipgs']['features'] == 'toy'
    with pytest.raises(FileExistsError, match='which GraphGym would delete'):
        run(CONTRASTIVE, ['dataset.name', 'triplets'])
    assert (folder / '0' / 'ckpt' / '11.ckpt').is_file()


def test_a_run_goes_on_from_its_checkpoint_and_leaves_logging_alone(tmp_path):
    write_classes(tmp_path / 'splats')
    options = ['dataset.name', 'splats', 'clipgs.gaussians', 8, 'clipgs.k', 3, 'gnn.dim_inner', 4]
    handlers = list(logging.root.handlers)
    run(CLASSES, [*options, 'optim.max_epoch', 1])
    found = run(CLASSES, [*options, 'optim.max_epoch', 3, 'train.auto_resume', True])
    stats = tmp_path / 'work_dirs' / 'graphgym' / CLASSES / '0' / 'train' / 'stats.json'
    assert [json.loads(line)['epoch'] for line in stats.read_text().splitlines()] == [0, 1, 2]
    assert found['test']['epoch'] == 2 and logging.root.handlers == handlers


def test_networks_of_graphgym_classify_folders(tmp_path):
    write_classes(tmp_path / 'splats')
    found = run(CLASSES, ['dataset.name', 'splats', 'clipgs.gaussians', 32, 'clipgs.k', 4, 'optim.max_epoch', 15,
                          'gnn.dim_inner', 16, 'optim.base_lr', 0.02, 'train.batch_size', 4])
    assert found['test']['clipgs_accuracy'] == 1.0


def test_evaluation_sees_the_same_gaussians_each_time(tmp_path):
    write_triplets(tmp_path / 'triplets')
    run(CONTRASTIVE, ['dataset.name', 'triplets', 'optim.max_epoch', 1, 'clipgs.gaussians', 10, 'clipgs.config',
                      str(small(tmp_path)), 'clipgs.features', 'toy'])
    first, second = ([torch.cat([batch.pos for batch in loader]) for loader in create_loader()] for _ in range(2))
    assert torch.equal(first[1], second[1]) and torch.equal(first[2], second[2])
    assert first[0].shape == (80, 3) and not torch.equal(first[0], second[0])


def test_other_formats_are_left_to_other_loaders():
    assert register.loader_dict['clipgs']('PyG', 'Cora', '.') is None


def test_recall_counts_equal_captions_as_right():
    text = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    found = [torch.tensor([[2.0, 1], [3, 0]]), torch.tensor([[1.0, 0.1]])]
    assert clipgs_recall([text[:2], text[2:]], found, 'regression') == pytest.approx(2 / 3)


def test_accuracy_of_many_classes_and_of_two():
    labels = [torch.tensor([0, 1]), torch.tensor([2])]
    scores = torch.tensor([[3.0, 0, 0], [3, 0, 0], [0, 0, 1]])
    assert clipgs_accuracy(labels, [scores[:2], scores[2:]], 'classification') == pytest.approx(2 / 3)
    assert clipgs_accuracy([torch.tensor([1, 0])], [torch.tensor([0.9, 0.8])], 'classification') == 0.5


def test_errors_say_what_to_do(tmp_path, monkeypatch):
    write_triplets(tmp_path / 'triplets', 12)
    with pytest.raises(FileNotFoundError, match=CONTRASTIVE):
        run('absent')
    with pytest.raises(ValueError, match='fast is unknown'):
        run(CONTRASTIVE, ['clipgs.trainer', 'fast'])
    monkeypatch.setattr('clipgs_plugin.geometric.graphgym.find_spec', lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'clipgs\.trainer: plain works without it'):
        run(CONTRASTIVE, ['clipgs.trainer', 'lightning'])
    with pytest.raises(ValueError, match='no embeddings of captions'):
        run(CONTRASTIVE, ['dataset.name', 'triplets', 'clipgs.features', '', 'clipgs.config', str(small(tmp_path))])


def test_too_few_objects_for_three_splits(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / 'few' / name).mkdir(parents=True)
        write_gaussians(random_cloud(9), tmp_path / 'few' / name / 'x.ply')
    with pytest.raises(ValueError, match='2 objects are too few for three splits'):
        run(CLASSES, ['dataset.name', 'few'])


def test_lightning_trains_as_the_plain_loop_does(tmp_path):
    """With the same seed: the same batches, losses and accuracies, logged for the same epochs.

    The first run makes the dataset and the second one reads it, which must not change the seed's random numbers.
    """
    pytest.importorskip('lightning')
    write_triplets(tmp_path / 'triplets')
    options = ['dataset.name', 'triplets', 'clipgs.features', 'toy', 'clipgs.config', str(small(tmp_path)),
               'clipgs.gaussians', 16, 'train.batch_size', 3, 'optim.max_epoch', 4, 'train.eval_period', 2]
    logs = {}
    for trainer in ('plain', 'lightning'):
        found = run(CONTRASTIVE, [*options, 'clipgs.trainer', trainer, 'out_dir', trainer])
        assert found.keys() == {'train', 'val', 'test'}
        logs[trainer] = {part: [json.loads(line) for line in (
            tmp_path / trainer / CONTRASTIVE / '0' / part / 'stats.json').read_text().splitlines()] for part in found}
    plain, lightning = logs['plain'], logs['lightning']
    assert [row['epoch'] for row in lightning['train']] == [0, 1, 2, 3]
    assert [row['epoch'] for row in lightning['val']] == [row['epoch'] for row in plain['val']] == [1, 3]
    for part in plain:
        for row, other in zip(plain[part], lightning[part], strict=True):
            assert {key: other[key] for key in ('loss', 'clipgs_recall', 'params')} == pytest.approx(
                {key: row[key] for key in ('loss', 'clipgs_recall', 'params')}, abs=2e-4)
    with pytest.raises(ValueError, match=r'auto_resume has no effect on clipgs\.trainer: lightning'):
        run(CONTRASTIVE, [*options, 'clipgs.trainer', 'lightning', 'out_dir', 'lightning', 'train.auto_resume', True])
    with pytest.raises(ValueError, match=r'epoch=3-step=12\.ckpt is a checkpoint of Lightning'):
        run(CONTRASTIVE, [*options, 'out_dir', 'lightning', 'train.auto_resume', True])
