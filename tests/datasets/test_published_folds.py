"""The published few-shot folds: both spellings of the folder, every protocol, and nothing that runs code."""
import pickle

import numpy as np
import pytest
import torch
from fold_files import write_folds

from clipgs_plugin.datasets import FrozenFeatures, PublishedFold, PublishedFolds, published_episodes
from clipgs_plugin.registry import DATASETS


def write(folder, protocol=4):
    """A fold of 2 ways and 1 shot of classes 7 and 3, as Point-BERT's generator makes it."""
    rng, originals = np.random.default_rng(0), (7, 3)
    parts = {}
    for part, count in (('train', 1), ('test', 2)):
        parts[part] = [(rng.normal(size=(64, 6)).astype(np.float32), label, np.int32(originals[label]))
                       for label in range(2) for _ in range(count)]
    folder.mkdir(parents=True)
    (folder / '0.pkl').write_bytes(pickle.dumps(parts, protocol))
    return parts


@pytest.mark.parametrize('protocol', range(2, 6))
@pytest.mark.parametrize('name', ['2way1shot', '2way_1shot'])
def test_folds_are_read_in_both_folders_and_every_protocol(tmp_path, name, protocol):
    parts = write(tmp_path / name, protocol)
    fold = DATASETS.build(dict(type='PublishedFold', root=tmp_path, ways=2, shots=1, fold=0, part='test'))
    assert len(fold) == 4 and fold.classes == ['7', '3']
    item = fold[3]
    assert (item['label'], item['category'], item['uid']) == (1, '3', '0/test/0003')
    assert np.array_equal(item['gaussians'].means.numpy(), parts['test'][3][0][:, :3])
    np.testing.assert_allclose(item['gaussians'].rgb, 0.4, atol=1e-6)
    normal = parts['test'][3][0][:, 3:]
    third_axis = item['gaussians'].rotations[..., 2].numpy()
    np.testing.assert_allclose(third_axis, normal / np.linalg.norm(normal, axis=1, keepdims=True), atol=1e-4)


def test_classes_have_the_names_that_are_given(tmp_path):
    write(tmp_path / '2way1shot')
    fold = PublishedFold(tmp_path, 2, 1, 0, 'train', class_names=[f'class {i}' for i in range(40)])
    assert fold.classes == ['class 7', 'class 3']


class Evil:
    def __reduce__(self):
        return print, ('code ran',)


def test_other_globals_are_refused_by_name(tmp_path, capsys):
    write(tmp_path / '2way1shot')
    file = tmp_path / '2way1shot' / '0.pkl'
    for protocol in range(6):
        file.write_bytes(pickle.dumps({'train': [Evil()]}, protocol))
        with pytest.raises(ValueError, match=r'0\.pkl: holds (builtins|__builtin__)\.print, which could run code'):
            PublishedFold(tmp_path, 2, 1, 0, 'train')
    assert 'code ran' not in capsys.readouterr().out


def test_damage_and_absence_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'fold .*2way1shot.*0\.pkl does not exist, nor does .*2way_1shot'):
        PublishedFold(tmp_path, 2, 1, 0, 'train')
    write(tmp_path / '2way1shot')
    file = tmp_path / '2way1shot' / '0.pkl'
    whole = file.read_bytes()
    for content in (whole[:-40], b'', pickle.dumps([1]), pickle.dumps({'train': [(np.zeros((3, 3)), 0, 1)]})):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r'0\.pkl'):
            PublishedFold(tmp_path, 2, 1, 0, 'train')
    file.write_bytes(whole)
    with pytest.raises(ValueError, match=r'has labels \[0, 1\], expected 0 to 2'):
        (tmp_path / '2way1shot').rename(tmp_path / '3way1shot')
        PublishedFold(tmp_path, 3, 1, 0, 'train')


def test_all_folds_are_one_dataset_with_the_labels_of_the_40_classes(tmp_path):
    write_folds(tmp_path / '2way_1shot')
    train, test = (PublishedFolds(tmp_path, 2, 1, part, folds=3) for part in ('train', 'test'))
    assert (len(train), len(test), len(train.classes)) == (6, 120, 40)
    items = [train[i] for i in range(6)]
    assert [item['label'] for item in items] == [7, 3, 0, 39, 3, 7]
    assert [item['uid'] for item in items] == ['0/train/0000', '0/train/0001', '1/train/0000', '1/train/0001',
                                               '2/train/0000', '2/train/0001']
    assert [item['category'] for item in items[:3]] == ['car', 'bench', 'airplane']
    one = PublishedFold(tmp_path, 2, 1, 1, 'test')
    assert torch.equal(test[45]['gaussians'].means, one[5]['gaussians'].means)
    assert torch.equal(test[3]['gaussians'].means, test[3]['gaussians'].means)  # back in an earlier fold


def features_of(dataset):
    items = [dataset[i] for i in range(len(dataset))]
    return FrozenFeatures(torch.stack([item['gaussians'].means.mean(0) for item in items]),
                          torch.tensor([item['label'] for item in items]), [item['uid'] for item in items],
                          dataset.classes)


def test_the_published_tasks_are_those_of_the_files(tmp_path):
    write_folds(tmp_path / '2way1shot')
    support, query = (features_of(PublishedFolds(tmp_path, 2, 1, part, folds=3)) for part in ('train', 'test'))
    tasks = published_episodes(support, query)
    assert [task.classes for task in tasks] == [('car', 'bench'), ('airplane', 'xbox'), ('bench', 'car')]
    assert tasks[1].support == (('1/train/0000',), ('1/train/0001',))
    assert tasks[2].query[1] == tuple(f'2/test/{i:04d}' for i in range(20, 40))
    write_folds(tmp_path / 'b' / '2way1shot', classes=((7, 3), (0, 38), (3, 7)))
    other = features_of(PublishedFolds(tmp_path / 'b', 2, 1, 'test', folds=3))
    with pytest.raises(ValueError, match='fold 1 has other classes to learn than to classify'):
        published_episodes(support, other)


def test_folds_of_another_size_or_that_are_absent_are_named(tmp_path):
    write_folds(tmp_path / '2way1shot', queries=19)
    with pytest.raises(ValueError, match=r'0\.pkl: 38 objects to test, expected 40'):
        PublishedFolds(tmp_path, 2, 1, 'test', folds=3)
    with pytest.raises(FileNotFoundError, match=r'3\.pkl does not exist'):
        PublishedFolds(tmp_path, 2, 1, 'train')
    with pytest.raises(ValueError, match=r'0\.pkl: classes 3 to 7, but class_names has 5'):
        PublishedFolds(tmp_path, 2, 1, 'train', folds=3, class_names=list('abcde'))
