import zipfile

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


def arrays(**changes):
    made = dict(embeddings=index(3).embeddings.numpy(), paths=np.array(['a', 'b', 'c']), model=np.array('m'),
                checkpoint=np.array(''))
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


@pytest.mark.parametrize('changes, message', [
    (dict(paths=np.array([b'a', b'b', b'c'])), "'paths' is |S1"), (dict(paths=np.arange(3)), "'paths' is int64"),
    (dict(paths=np.array(['a', 'b'])), '2 paths for embeddings'), (dict(model=np.array(['m'])), "'model' is"),
    (dict(checkpoint=None), "expected an array 'checkpoint'"),
    (dict(embeddings=np.full((3, 8), np.nan, np.float32)), "3 of 3 embeddings are not unit .* 'a'"),
    (dict(embeddings=np.eye(3, dtype=np.float32) * [1, 1e18, 1]), 'float64'),
    (dict(embeddings=(np.eye(3) * [1, 1e18, 1]).astype(np.float32)), "1 of 3 embeddings are not unit .* 'b'"),
    (dict(embeddings=np.eye(3, dtype=np.float16)), 'float16, expected torch.float32'),
    (dict(paths=np.array([97, 2 ** 31, 99], np.uint32).view('<U1')), "'paths' cannot be read .*no character"),
    (dict(embeddings=np.eye(3, dtype=np.int32)), "'embeddings' is int32")])
def test_arrays_that_are_no_index_are_refused(tmp_path, changes, message):
    np.savez(tmp_path / 'e.npz', **arrays(**changes))
    with pytest.raises(ValueError, match=rf'e\.npz is not an index.*{message}.*tools/embed\.py'):
        SearchIndex.load(tmp_path / 'e.npz')


def test_an_index_that_inflates_beyond_reason_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / 'e.npz', 'w', zipfile.ZIP_DEFLATED) as archive, \
            archive.open('embeddings.npy', 'w') as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    with pytest.raises(ValueError, match='promise 209715200 bytes of arrays'):
        SearchIndex.load(tmp_path / 'e.npz')


def test_damaged_headers_are_refused_with_the_path(tmp_path):
    """They make numpy raise errors of the tokenizer and of the interpreter."""
    for header in (b"{'descr': '<f4', 'shape': (", b'((((' * 30, b'\x00' * 20, b"{'descr': '|S0', 'shape': (-1,)}"):
        data = b'\x93NUMPY\x01\x00' + (118).to_bytes(2, 'little') + header.ljust(117) + b'\n'
        np.savez(tmp_path / 'e.npz', **arrays(paths=None))
        with zipfile.ZipFile(tmp_path / 'e.npz', 'a') as archive:
            archive.writestr('paths.npy', data)
        with pytest.raises(ValueError, match=r"e\.npz is not an index.*'paths' cannot be read"):
            SearchIndex.load(tmp_path / 'e.npz')


def test_up_axes_return_from_the_file_and_older_indexes_have_none(tmp_path):
    before = index(3)
    ups = (('-y', 0.75), ('z', 1.0), ('y', 0.25))
    SearchIndex(before.embeddings, before.paths, before.model, '', ups).save(tmp_path / 'e.npz')
    assert SearchIndex.load(tmp_path / 'e.npz').ups == ups
    np.savez(tmp_path / 'old.npz', **arrays())
    assert SearchIndex.load(tmp_path / 'old.npz').ups == ()
    np.savez(tmp_path / 'bad.npz', **arrays(ups=np.array(['y', 'z']), up_confidences=np.ones(3)))
    with pytest.raises(ValueError, match='not an index'):
        SearchIndex.load(tmp_path / 'bad.npz')
    with pytest.raises(ValueError, match='2 up axes for 3 paths'):
        SearchIndex(before.embeddings, before.paths, before.model, '', ups[:2])


def test_options_return_from_the_file_and_older_indexes_have_none(tmp_path):
    before = index(3)
    options = ('--up=-y', '--turns=12', '--remove-plane')
    SearchIndex(before.embeddings, before.paths, before.model, options=options).save(tmp_path / 'e.npz')
    assert SearchIndex.load(tmp_path / 'e.npz').options == options
    np.savez(tmp_path / 'old.npz', **arrays())
    assert SearchIndex.load(tmp_path / 'old.npz').options == ()
    np.savez(tmp_path / 'bad.npz', **arrays(options=np.array([1, 2])))
    with pytest.raises(ValueError, match="'options' is int64"):
        SearchIndex.load(tmp_path / 'bad.npz')


def test_a_config_beside_a_foreign_index_is_never_its_model(tmp_path):
    before = index(3)
    SearchIndex(before.embeddings, before.paths, 'config.py').save(tmp_path / 'e.npz')
    with pytest.raises(ValueError, match=r"e\.npz names the config 'config\.py'"):
        SearchIndex.load(tmp_path / 'e.npz')


def test_more_neighbours_than_rows_are_all_rows():
    assert len(index(3).find(index(1).embeddings[0], 10 ** 12)) == 3
