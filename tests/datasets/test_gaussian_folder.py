import pytest
import torch

from clipgs_plugin import write_gaussians
from clipgs_plugin.datasets import GaussianFolder

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
