import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from clipgs_plugin.evaluation import ClassEmbeddings

ROWS = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.5], [-1.0, 0.0, 0.0]])


@pytest.fixture
def classes():
    return ClassEmbeddings(('chair', 'Tür', 'mug'), ROWS, 'toy-clip')


def test_rows_are_unit_vectors_by_name(classes):
    assert torch.allclose(classes.embeddings, torch.tensor([[0.6, 0.8, 0], [0, 0, 1], [-1, 0, 0]]))
    assert len(classes) == classes.width == 3
    picked = classes.select(['mug', 'chair'])
    assert picked.names == ('mug', 'chair') and picked.teacher == 'toy-clip'
    assert torch.equal(picked.embeddings, classes.embeddings[[2, 0]])
    with pytest.raises(ValueError, match=r'lack 1 of 2 names \(dragon\); they have 3, such as chair'):
        classes.select(['mug', 'dragon'])


@pytest.mark.parametrize('name', ['c.npz', 'c.safetensors'])
def test_a_file_holds_names_rows_and_teacher(classes, tmp_path, name):
    classes.save(tmp_path / name)
    found = ClassEmbeddings.load(str(tmp_path / name))
    assert found.names == classes.names and found.teacher == 'toy-clip'
    assert torch.allclose(found.embeddings, classes.embeddings, atol=1e-7)


def test_embeddings_of_others_are_read(data):
    """LVIS by OpenAI's ViT-B/32, in half precision and not normalised, as Detic published them."""
    path = data / 'clip_text' / 'lvis_vitb32_openai.npz'
    if not path.exists():
        pytest.skip(f'{path} is absent')
    found = ClassEmbeddings.load(path)
    assert len(found) == 1203 and found.width == 512 and found.teacher == ''
    assert torch.allclose(found.embeddings.norm(dim=1), torch.ones(1203), atol=1e-6)
    with np.load(path) as arrays:
        row = arrays['embeddings'][arrays['names'].tolist().index('airplane')].astype(np.float64)
    airplane = found.select(['airplane']).embeddings[0]
    np.testing.assert_allclose(airplane, row / np.linalg.norm(row), atol=1e-6)
    nearest = (found.embeddings @ airplane).topk(2).indices.tolist()  # by meaning
    assert {found.names[i] for i in nearest} == {'airplane', 'jet_plane'}


@pytest.mark.parametrize('names, rows, message', [
    (('a', 'b'), ROWS, r'2 class names for embeddings of shape \(3, 3\)'),
    ((), ROWS[:0], '0 class names'),
    (('a', 'b', 'a'), ROWS, "'a' is named twice"),
    (('a', 'b', 'c'), ROWS * torch.tensor([[1], [0], [1]]), "embedding of 'b' is zero"),
    (('a', 'b', 'c'), ROWS * torch.tensor([[1], [1], [torch.nan]]), "embedding of 'c' is zero, NaN"),
])
def test_rows_without_meaning_are_refused(names, rows, message):
    with pytest.raises(ValueError, match=message):
        ClassEmbeddings(names, rows)


def test_files_of_other_kinds_are_refused_by_name(tmp_path):
    np.savez(tmp_path / 'points.npz', points=np.zeros((2, 3)))
    np.savez(tmp_path / 'zero.npz', names=np.array(['a']), embeddings=np.zeros((1, 3)))
    save_file({'embeddings': ROWS}, tmp_path / 'nameless.safetensors')
    save_file({'weight': ROWS}, tmp_path / 'other.safetensors', {'names': '["a"]'})
    (tmp_path / 'text.safetensors').write_text('mine')
    for name, message in (('points.npz', "expected an array 'names'"), ('zero.npz', "'a' is zero"),
                          ('nameless.safetensors', 'names in its metadata'), ('other.safetensors', 'tensor embeddings'),
                          ('text.safetensors', 'tensor embeddings'), ('c.txt', r'ends in .npz or .safetensors')):
        with pytest.raises(ValueError, match=rf'{name}.*{message}'):
            ClassEmbeddings.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r'absent\.npz do not exist'):
        ClassEmbeddings.load(tmp_path / 'absent.npz')
