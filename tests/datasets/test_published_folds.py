"""The published few-shot folds: both spellings of the folder, every protocol, and nothing that runs code."""
import pickle

import numpy as np
import pytest

from clipgs_plugin.datasets.published_folds import PublishedFold
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
