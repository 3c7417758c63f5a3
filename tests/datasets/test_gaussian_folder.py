import shutil

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from clipgs_plugin import get_config, write_gaussians
from clipgs_plugin.datasets import GaussianFolder
from clipgs_plugin.registry import MODELS

PIPELINE = [dict(type='LoadGaussians', sh_degree=0), dict(type='SampleGaussians', num=8), dict(type='PackGaussians')]


@pytest.fixture
def folder(tmp_path, random_cloud):
    for i, name in enumerate(['chair/b.ply', 'chair/more/a.ply', 'apple/x.PLY', 'table/y.ply']):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(random_cloud(10 + i, seed=i), path.with_suffix('.ply'))
        path.with_suffix('.ply').rename(path)
    (tmp_path / 'chair' / 'notes.txt').write_text('no splat')
    (tmp_path / '.cache').mkdir()
    return tmp_path


def test_objects_are_sorted_and_have_their_class(folder, random_cloud):
    dataset = GaussianFolder(folder, PIPELINE)
    assert dataset.metainfo['classes'] == ['apple', 'chair', 'table']
    samples = [item['data_samples'] for item in dataset]
    assert [(s['uid'], s['category'], s['label']) for s in samples] == [
        ('apple/x.PLY', 'apple', 0), ('chair/b.ply', 'chair', 1), ('chair/more/a.ply', 'chair', 1),
        ('table/y.ply', 'table', 2)]
    whole = GaussianFolder(folder)[1]['gaussians']
    assert torch.equal(whole.means, random_cloud(10, seed=0).means)


def test_captions_come_from_class_names_and_templates(folder):
    templates = ['{a} {}', 'one {} on a plate', 'some {}']
    train, test = (GaussianFolder(folder, PIPELINE, templates=templates, test_mode=mode) for mode in (False, True))
    drawn = {train[(epoch, 0)]['data_samples']['caption'] for epoch in range(30)}
    assert drawn == {'an apple', 'one apple on a plate', 'some apple'}
    assert {test[(epoch, 0)]['data_samples']['caption'] for epoch in range(30)} == {'an apple'}
    # Every caption describes every object of a class, so the objects share the id, whatever they have drawn.
    ids = [{train[(epoch, i)]['data_samples']['caption_id'] for epoch in range(5)} for i in range(4)]
    assert [len(found) for found in ids] == [1] * 4 and ids[1] == ids[2] and len(set.union(*ids)) == 3
    assert GaussianFolder(folder)[1]['captions'] == ['a chair']
    with pytest.raises(ValueError, match=r"'no name' has no '\{\}'"):
        GaussianFolder(folder, templates=['no name'])


def test_a_config_trains_on_a_folder_with_a_live_teacher(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')
    for split in ('train', 'val'):
        for name in ('chair', 'apple', 'table'):
            shutil.copytree(folder / name, out / 'splats' / split / name)
    cfg = get_config('clipgs_pointbert-nano_15e_splats')
    cfg.merge_from_dict({'train_dataloader.dataset.root': str(out / 'splats/train'),
                         'val_dataloader.dataset.root': str(out / 'splats/val')})
    with DefaultScope.overwrite_default_scope('clipgs_plugin'):
        model = MODELS.build(cfg.model)
        here = dict(batch_size=2, num_workers=0, persistent_workers=False)
        train, val = (Runner.build_dataloader({**loader, **here})
                      for loader in (cfg.train_dataloader, cfg.val_dataloader))
        evaluator = Evaluator(cfg.val_evaluator)
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    before = model.encoder.projection.weight.detach().clone()
    losses = [model.train_step(batch, optimizer) for batch in train]
    assert len(losses) == 2 and all(loss['loss_text'].isfinite() and 'loss_image' not in loss for loss in losses)
    assert not torch.equal(model.encoder.projection.weight, before)

    evaluator.dataset_meta = val.dataset.metainfo
    for batch in val:
        evaluator.process(model.eval().val_step(batch), batch)
    assert 0 <= evaluator.evaluate(4)['zero_shot/top1'] <= 100


def test_epochs_are_equal_in_test_mode_and_differ_in_training(folder):
    means = lambda dataset, index: dataset[index]['inputs'].means  # noqa: E731
    test, train = GaussianFolder(folder, PIPELINE, test_mode=True), GaussianFolder(folder, PIPELINE)
    assert torch.equal(means(test, (0, 3)), means(test, (7, 3)))
    assert torch.equal(means(train, (7, 3)), means(train, (7, 3)))
    assert len({tuple(means(train, (epoch, 3)).flatten().tolist()) for epoch in range(10)}) > 5


def test_selected_classes_are_labelled_in_their_order(folder):
    dataset = GaussianFolder(folder, classes=['table', 'chair'])
    assert [item['label'] for item in dataset] == [0, 1, 1]
    with pytest.raises(ValueError, match=r"\['sofa'\] are unknown; .*'apple', 'chair', 'table'"):
        GaussianFolder(folder, classes=['sofa'])


def test_empty_folders_are_named(folder):
    (folder / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'empty holds no file with a suffix \.compressed'):
        GaussianFolder(folder)
    assert len(GaussianFolder(folder, classes=['apple'])) == 1
    with pytest.raises(ValueError, match=r'holds no class folders \(but 1 splat files\)'):
        GaussianFolder(folder / 'table')
    with pytest.raises(FileNotFoundError, match='absent is not a folder'):
        GaussianFolder(folder / 'absent')


def test_real_files_of_every_format_are_listed(splats, tmp_path):
    (tmp_path / 'real').mkdir()
    names = sorted(path.name for path in splats.iterdir())
    for name in names:
        (tmp_path / 'real' / name).symlink_to(splats / name)
    dataset = GaussianFolder(tmp_path, PIPELINE)
    assert [dataset[i]['data_samples']['uid'] for i in range(len(dataset))] == [f'real/{name}' for name in names]
