import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from index_files import CATEGORIES, clustered, write_rows

from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex, vectors


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """30 rows in 4 shards, of which rows 3, 9 and 29 are gone."""
    folder = tmp_path_factory.mktemp('folder') / 'index'
    write_rows(folder, clustered(30), rows_per_shard=8)
    with IndexWriter(folder, IndexCard('clipgs_toy', 8), 8) as index:
        index.drop([f'/objects/{i:04d}.ply' for i in (3, 9, 29)])
    return folder


KEPT = [i for i in range(30) if i not in (3, 9, 29)]


@pytest.mark.parametrize('where, meets', [
    ((), lambda i: True), ('category=chair', lambda i: i % 3 == 0), ('category!=chair', lambda i: i % 3),
    (('gaussians>=10', 'sh_degree<2'), lambda i: i >= 10 and i % 4 < 2), ('path~/002', lambda i: i >= 20),
    ('category=sofa', lambda i: False)])
@pytest.mark.parametrize('step', [3, 8192])
def test_matches_are_those_of_a_plain_loop(folder, monkeypatch, where, meets, step):
    monkeypatch.setattr(vectors, 'STEP', step)
    index = SearchIndex.load(folder)
    stored = clustered(30).half().double().numpy()
    query = clustered(1, seed=5)[0]
    cosines = {i: stored[i] @ query.double().numpy() / np.linalg.norm(stored[i]) for i in KEPT if meets(i)}
    expected = sorted(cosines, key=lambda i: -cosines[i])[:7]
    matches = index.find(query, 7, where)
    assert [match.path for match in matches] == [f'/objects/{i:04d}.ply' for i in expected]
    assert [match.score for match in matches] == pytest.approx([cosines[i] for i in expected], abs=1e-6)
    assert [match.row for match in matches] == [KEPT.index(i) for i in expected]
    assert [(match.metadata['gaussians'], match.metadata['category']) for match in matches] == [
        (i, CATEGORIES[i % 3]) for i in expected]
    assert index.query(query, 3) == [(match.path, match.score) for match in index.find(query, 3)]


def test_rows_vectors_and_columns_are_in_one_order(folder):
    index = SearchIndex.load(folder)
    assert len(index) == 27 and index.paths == tuple(f'/objects/{i:04d}.ply' for i in KEPT)
    assert index.table['gaussians'].to_pylist() == KEPT
    found = index.vectors([26, 0, 5, 5])
    assert torch.allclose(found, clustered(30)[[KEPT[26], 0, KEPT[5], KEPT[5]]], atol=1e-3)
    assert torch.allclose(found.norm(dim=1), torch.ones(4), atol=1e-6)
    with pytest.raises(IndexError, match='27'):
        index.vectors([27])
    batches = list(index.batches(10))
    assert [len(batch) for batch in batches] == [10, 10, 7]
    table = pa.Table.from_batches(batches)
    assert table['id'].to_pylist() == list(range(27)) and table['gaussians'].to_pylist() == KEPT
    assert np.array_equal(np.array(table['vector'].to_pylist(), np.float32), index.embeddings.numpy())


def test_metadata_of_a_large_index_is_read_by_groups(folder, monkeypatch):
    small = SearchIndex.load(folder)
    monkeypatch.setattr('clipgs_plugin.search.folder.IN_MEMORY', 5)
    large = SearchIndex.load(folder)
    query = clustered(1, seed=6)[0]
    assert large.find(query, 9) == small.find(query, 9) and large.table == small.table
    assert large.find(query, 3, 'category=table') == small.find(query, 3, 'category=table')


def test_an_index_that_was_written_since_is_not_read_by_halves(tmp_path, monkeypatch):
    monkeypatch.setattr('clipgs_plugin.search.folder.IN_MEMORY', 5)
    write_rows(tmp_path / 'index', clustered(10), rows_per_shard=8)
    index = SearchIndex.load(tmp_path / 'index')
    write_rows(tmp_path / 'index', clustered(3, seed=1), first=5, rows_per_shard=8)
    with pytest.raises(ValueError, match=r'metadata_00001\.parquet was written since the index was loaded'):
        _ = index.table
    assert len(SearchIndex.load(tmp_path / 'index')) == 10


def test_a_folder_becomes_a_file_and_the_file_answers_alike(folder, tmp_path):
    index = SearchIndex.load(folder)
    index.save(tmp_path / 'e.npz')
    query = clustered(1, seed=7)[0]
    first, second = index.query(query, 5), SearchIndex.load(tmp_path / 'e.npz').query(query, 5)
    assert [path for path, _ in first] == [path for path, _ in second]
    assert [score for _, score in first] == pytest.approx([score for _, score in second], abs=1e-6)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def other_rows(path):
    pq.write_table(pq.read_table(path).slice(0, 5), path)


def without_column(path):
    pq.write_table(pq.read_table(path).drop_columns(['mtime_ns']), path)


def other_type(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index('gaussians'), 'gaussians', pa.array(['x'] * 8)), path)


def nested(path):
    pq.write_table(pq.read_table(path).append_column('tags', pa.array([['a']] * 8)), path)


def without_path(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.column_names.index('path'), 'path', pa.array([None] * 8, pa.string())), path)


def twice(path):
    pq.write_table(pq.read_table(path).append_column('gaussians', pa.array([1] * 8)), path)


def many(path):
    table = pq.read_table(path)
    for i in range(1000):
        table = table.append_column(f'c{i}', pa.array([1] * 8))
    pq.write_table(table, path)


def own_config(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), 'model': 'config.py'}))


def inner_config(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), 'model': str(path.with_name('config.py'))}))


def huge(path):
    with path.open('r+') as file:
        file.truncate(1 << 27)


def foreign(path):
    path.write_text('{"index": "faiss"}')


def newer(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 2}))


def wide(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), 'width': 16}))


def more_rows(path):
    content = json.loads(path.read_text())
    content['shards'][1]['rows'] = 10 ** 9
    path.write_text(json.dumps(content))


def not_finite(path):
    np.save(path, np.full((8, 8), np.nan, np.float16))


def long(path):
    np.save(path, 3 * np.ones((8, 8), np.float16))


def beyond(path):
    np.save(path, np.array([3, 1000]))


def signed(damage):
    """Damage with which the card agrees, as a stranger may write it."""
    def damaged(path):
        damage(path)
        card, key = path.parents[1] / 'index.json', 'metadata_sha256' if path.suffix == '.parquet' else 'sha256'
        content = json.loads(card.read_text())
        content['shards'][1][key] = hashlib.sha256(path.read_bytes()).hexdigest()
        card.write_text(json.dumps(content))
    return damaged


def reversed_rows(path):
    np.save(path, np.load(path)[::-1].copy())


def other_shard(path):
    shutil.copy(path.with_name(path.name.replace('1', '2')), path)


NOT_FINITE, LONG = signed(not_finite), signed(long)
VECTORS, METADATA = 'img_emb/img_emb_00001.npy', 'metadata/metadata_00001.parquet'


@pytest.mark.parametrize('name, damage, message', [
    (VECTORS, truncated, 'not a .npy file'), (VECTORS, os.remove, 'does not exist, one of 4 shards'),
    (VECTORS, lambda path: np.save(path, np.zeros((8, 8))), 'float64, expected'),
    (VECTORS, lambda path: np.save(path, np.zeros((8, 9), np.float16)), r'\(8, 9\)'),
    (VECTORS, lambda path: np.save(path, np.zeros((8, 8), np.float16, 'F').T.copy().T), 'Fortran'),
    (VECTORS, NOT_FINITE, 'not finite'), (VECTORS, LONG, 'not a unit vector'),
    (VECTORS, reversed_rows, 'its SHA-256 is not that of index.json'), (METADATA, other_shard, 'its SHA-256 is not'),
    (METADATA, truncated, 'cannot be read'), (METADATA, os.remove, 'does not exist, one of 4 shards'),
    (METADATA, other_rows, '5 rows, the vectors have 8'), (METADATA, without_column, "'mtime_ns' is absent"),
    (METADATA, other_type, "'gaussians' is absent or not of int64"), (METADATA, nested, "'tags' is list"),
    (METADATA, signed(without_path), '8 rows do not have a path'), (METADATA, twice, '11 columns of 10 names'),
    (METADATA, many, '1010 columns of 1010 names'), ('index.json', huge, '134,217,728 bytes, expected at most'),
    ('index.json', own_config, "config 'config.py'"), ('index.json', inner_config, "config '/.*config.py'"),
    ('index.json', foreign, 'not the card of an index'), ('index.json', newer, 'has version 2'),
    ('index.json', wide, 'expected'), ('index.json', more_rows, '1000000000'),
    ('tombstones.npy', truncated, 'not a .npy file'), ('tombstones.npy', beyond, 'below 30')])
def test_a_damaged_index_is_refused_with_the_file(folder, tmp_path, name, damage, message):
    shutil.copytree(folder, tmp_path / 'index')
    damage(tmp_path / 'index' / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        SearchIndex.load(tmp_path / 'index').find(clustered(1)[0])
    text = str(refused.value)
    assert str(tmp_path / 'index') in text and '\n' not in text and (
        name in text or damage in (NOT_FINITE, LONG, wide, more_rows, own_config, inner_config))
    if damage not in (foreign, newer, own_config, inner_config):
        assert 'tools/embed.py' in text or 'not a .npy' in text


def test_other_files_of_a_large_index_are_found_on_request_and_before_writing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr('clipgs_plugin.search.folder.VERIFIED_BYTES', 100)
    assert len(SearchIndex.load(folder, verify=True)) == 27
    index = shutil.copytree(folder, tmp_path / 'index')
    reversed_rows(index / VECTORS)
    assert len(SearchIndex.load(index)) == 27
    for open_it in (lambda: SearchIndex.load(index, verify=True), lambda: write_rows(index, clustered(1), first=40)):
        with pytest.raises(ValueError, match=rf'{VECTORS} is not the file that was written.*; copy it again'):
            open_it()


def test_tombstones_that_are_absent_or_others_do_not_bring_rows_back(folder, tmp_path):
    index = shutil.copytree(folder, tmp_path / 'index')
    np.save(index / 'tombstones.npy', np.array([3, 9], np.int64))
    with pytest.raises(ValueError, match=r'tombstones\.npy is not the file that was written.*; copy it again'):
        SearchIndex.load(index)
    os.remove(index / 'tombstones.npy')
    with pytest.raises(FileNotFoundError, match=r'tombstones\.npy does not exist, which tells the rows that are gone'):
        SearchIndex.load(index)
    content = json.loads((index / 'index.json').read_text())
    del content['tombstones_sha256']  # as in an older index
    (index / 'index.json').write_text(json.dumps(content))
    assert len(SearchIndex.load(index, verify=True)) == 30


def test_an_index_without_hashes_of_metadata_is_read_and_continued(folder, tmp_path):
    index = shutil.copytree(folder, tmp_path / 'index')
    content = json.loads((index / 'index.json').read_text())
    for shard in content['shards']:
        del shard['metadata_sha256']
    (index / 'index.json').write_text(json.dumps(content))
    write_rows(index, clustered(1), first=40, rows_per_shard=8)
    assert len(SearchIndex.load(index, verify=True)) == 28
    assert ['metadata_sha256' in shard and len(shard['metadata_sha256'])
            for shard in json.loads((index / 'index.json').read_text())['shards']] == [0, 0, 0, 64]


def test_a_query_or_a_column_that_does_not_fit_is_said(folder):
    index = SearchIndex.load(folder)
    with pytest.raises(ValueError, match=r'\(4,\).*vectors of 8.*clipgs_toy'):
        index.find(torch.ones(4))
    with pytest.raises(ValueError, match='not finite'):
        index.find(torch.full((8,), torch.nan))
    with pytest.raises(ValueError, match=r"'color' is no column of the index; it has .*category"):
        index.find(torch.ones(8), where='color=red')


def test_a_folder_that_cannot_be_written_is_read_and_named(tmp_path, monkeypatch):
    write_rows(tmp_path / 'index', clustered(5))
    before = {path: path.read_bytes() for path in (tmp_path / 'index').rglob('*') if path.is_file()}

    def full(self, data):
        raise OSError(28, 'No space left on device')
    with pytest.raises(OSError, match='No space left') as refused:
        _write_with(monkeypatch, full, tmp_path / 'index')
    assert str(tmp_path / 'index') in str(refused.value.filename)
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in (tmp_path / 'index').rglob('*') if path.is_file()} == before
    assert len(SearchIndex.load(tmp_path / 'index')) == 5


def _write_with(monkeypatch, write, folder):
    """Append a row while files cannot be written."""
    from clipgs_plugin.io import files

    class File:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)
    File.write = write
    opened = files._open_temporary
    monkeypatch.setattr(files, '_open_temporary', lambda path: (lambda file, name: (File(file), name))(*opened(path)))
    write_rows(folder, clustered(1), first=9)
