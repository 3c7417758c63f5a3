import numpy as np
import pytest
import torch

from clipgs_plugin.apis import SearchIndex


def index(n=20, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.nn.functional.normalize(torch.randn(n, width, generator=generator), dim=-1)
    return SearchIndex(embeddings, tuple(f'{i}.ply' for i in range(n)), 'clipgs_toy')


def test_query_ranks_by_cosine_like_a_plain_loop():
    found = index()
    query = found.embeddings[7] + 0.3 * found.embeddings[2]
    query = query / query.norm()
    cosines = [float(np.dot(row.double().numpy(), query.double().numpy())) for row in found.embeddings]
    expected = sorted(range(20), key=lambda i: -cosines[i])[:5]
    matches = found.query(query, k=5)
    assert [path for path, _ in matches] == [f'{i}.ply' for i in expected]
    assert [score for _, score in matches] == pytest.approx([cosines[i] for i in expected], abs=1e-6)


def test_an_index_returns_from_its_file(tmp_path):
    before = index()
    before.save(tmp_path / 'e.npz')
    after = SearchIndex.load(tmp_path / 'e.npz')
    assert torch.equal(before.embeddings, after.embeddings)
    assert (after.paths, after.model, after.checkpoint) == (before.paths, 'clipgs_toy', '')


def test_a_query_of_another_width_names_both_and_the_model():
    with pytest.raises(ValueError, match=r'\(4,\).*vectors of 8.*clipgs_toy'):
        index().query(torch.zeros(4))


@pytest.mark.parametrize('content', [b'', b'not an archive', None])
def test_what_is_no_index_is_refused_with_the_way_to_make_one(tmp_path, content):
    path = tmp_path / 'e.npz'
    if content is None:
        np.savez(path, vectors=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r'not an index.*tools/embed.py'):
        SearchIndex.load(path)
    with pytest.raises(FileNotFoundError, match=r'tools/embed.py'):
        SearchIndex.load(tmp_path / 'absent.npz')
