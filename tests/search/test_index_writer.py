import os
import signal
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex, empty_index

CARD = IndexCard('clipgs_toy', 8, checkpoint_sha256='ab' * 32, options=('--up=y', '--turns=1'), teacher='toy-clip')


def vectors(n, seed=0, width=8):
    return normalize(torch.randn(n, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def files(folder, n):
    folder.mkdir(exist_ok=True)
    paths = [folder / f'{i:03d}.ply' for i in range(n)]
    for path in paths:
        path.write_text(path.name)
    return [str(path) for path in paths]


def write(folder, paths, embeddings, rows_per_shard=4, card=CARD, flush_rows=256, **metadata):
    with IndexWriter(folder, card, rows_per_shard, flush_rows) as index:
        for path, embedding in zip(paths, embeddings):
            index.add(path, embedding, **metadata)


def test_an_index_has_the_layout_that_other_readers_expect(tmp_path):
    paths = files(tmp_path / 'splats', 10)
    write(tmp_path / 'index', paths, vectors(10), category='chair')
    shards = sorted(os.listdir(tmp_path / 'index' / 'img_emb'))
    assert shards == ['img_emb_00000.npy', 'img_emb_00001.npy', 'img_emb_00002.npy']
    assert sorted(os.listdir(tmp_path / 'index' / 'metadata')) == [
        name.replace('img_emb', 'metadata').replace('npy', 'parquet') for name in shards]
    stored = np.concatenate([np.load(tmp_path / 'index' / 'img_emb' / name) for name in shards])
    assert stored.dtype == np.float16 and np.array_equal(stored, vectors(10).half().numpy())
    rows = [row for i in range(3)
            for row in pq.read_table(tmp_path / 'index' / 'metadata' / f'metadata_{i:05d}.parquet').to_pylist()]
    assert [row['image_path'] for row in rows] == [row['path'] for row in rows] == paths
    assert [row['size'] for row in rows] == [7] * 10
    assert {(row['caption'], row['category']) for row in rows} == {('', 'chair')}


def test_an_index_that_grew_in_parts_is_that_of_one_run(tmp_path):
    paths = files(tmp_path / 'splats', 11)
    write(tmp_path / 'one', paths, vectors(11))
    for part in (slice(0, 2), slice(2, 7), slice(7, 11)):
        write(tmp_path / 'parts', paths[part], vectors(11)[part])
    for path in (tmp_path / 'one' / 'img_emb').iterdir():
        assert path.read_bytes() == (tmp_path / 'parts' / 'img_emb' / path.name).read_bytes()
    one, parts = SearchIndex.load(tmp_path / 'one'), SearchIndex.load(tmp_path / 'parts')
    assert one.table == parts.table and one.paths == tuple(paths)
    assert torch.allclose(one.embeddings, vectors(11), atol=1e-3)


def test_rows_without_a_value_are_given_one_and_keep_their_vectors(tmp_path):
    paths, folder = [f'/objects/{i}.ply' for i in range(10)], tmp_path / 'index'
    write(folder, paths[:5], vectors(5), size=0, mtime_ns=0)
    write(folder, paths[5:], vectors(5, 1), size=0, mtime_ns=0, category='known')
    before = {path.name: path.read_bytes() for path in (folder / 'img_emb').iterdir()}
    with IndexWriter(folder, CARD, 4) as index:
        index.drop([paths[0]])
        assert index.fill('category', dict.fromkeys([*paths[:2], *paths[4:6], '/other.ply'], 'new')) == 2
        with pytest.raises(ValueError, match="column 'size' is string, in the index it is int64"):
            index.fill('size', {paths[2]: 'large'})
        index.add('/last.ply', vectors(1)[0], size=0, mtime_ns=0)
    found = SearchIndex.load(folder, verify=True)
    assert found.table['category'].to_pylist() == ['new', None, None, 'new', *['known'] * 5, None]
    stored = {path.name: path.read_bytes() for path in (folder / 'img_emb').iterdir()}
    assert stored['img_emb_00002.npy'] != before.pop('img_emb_00002.npy') and before.items() <= stored.items()


def test_changed_files_are_embedded_again_and_vanished_ones_dropped(tmp_path):
    paths = files(tmp_path / 'splats', 6)
    write(tmp_path / 'index', paths, vectors(6))
    (tmp_path / 'splats' / '001.ply').write_text('changed')
    os.remove(paths[4])
    new = files(tmp_path / 'splats', 7)[6]
    os.remove(paths[4])
    present = [*paths[:4], paths[5], new]
    for path in (paths[0], *paths[2:4], paths[5]):  # as before
        row = next(row for row in SearchIndex.load(tmp_path / 'index').table.to_pylist() if row['path'] == path)
        os.utime(path, ns=(row['mtime_ns'], row['mtime_ns']))
    os.utime(paths[1], ns=(1, 1))
    with IndexWriter(tmp_path / 'index', CARD, 4) as index:
        assert index.outdated(present) == [paths[1], new]
        index.add(paths[1], vectors(1, seed=5)[0])
        index.add(new, vectors(1, seed=6)[0])
        assert index.drop_missing([tmp_path / 'splats']) == [paths[4]]
        assert len(index) == 6
    found = SearchIndex.load(tmp_path / 'index')
    assert found.paths == (paths[0], paths[2], paths[3], paths[5], paths[1], new)
    expected = torch.cat([vectors(6)[[0, 2, 3, 5]], vectors(1, seed=5), vectors(1, seed=6)])
    assert torch.allclose(found.embeddings, expected, atol=1e-3)
    assert paths[4] not in [match.path for match in found.find(vectors(6)[4], k=10)]
    with IndexWriter(tmp_path / 'index', CARD, 4) as index:
        assert index.outdated(present) == []
        index.compact()
    compact = SearchIndex.load(tmp_path / 'index')
    assert compact.table == found.table and torch.equal(compact.embeddings, found.embeddings)
    assert not (tmp_path / 'index' / 'tombstones.npy').exists()
    assert len(os.listdir(tmp_path / 'index' / 'img_emb')) == 2


def test_a_file_that_changes_while_it_is_embedded_is_outdated_afterwards(tmp_path):
    path, = files(tmp_path / 'splats', 1)
    with IndexWriter(tmp_path / 'index', CARD) as index:
        assert index.outdated([path]) == [path]
        (tmp_path / 'splats' / '000.ply').write_text('longer than before')
        index.add(path, vectors(1)[0])
    with IndexWriter(tmp_path / 'index', CARD) as index:
        assert index.outdated([path]) == [path]


@pytest.mark.parametrize('change, message', [
    (dict(model='uni3d-b'), "model 'clipgs_toy', not 'uni3d-b'"), (dict(width=16), 'width 8, not 16'),
    (dict(checkpoint_sha256='cd' * 32), r'weights \(SHA-256\)'),
    (dict(options=('--up=z',)), "options '--up=y --turns=1', not '--up=z'")])
def test_vectors_of_another_origin_are_refused(tmp_path, change, message):
    path, = files(tmp_path / 'splats', 1)
    write(tmp_path / 'index', [path], vectors(1))
    other = IndexCard(**{**CARD.__dict__, **change})
    with pytest.raises(ValueError, match=rf'index was made with {message}.*write another index'), \
            IndexWriter(tmp_path / 'index', other):
        pass


def test_folders_of_something_else_are_left_alone(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(ValueError, match='not an index'), IndexWriter(tmp_path, CARD):
        pass
    assert os.listdir(tmp_path) == ['notes.txt']


@pytest.mark.parametrize('embedding, metadata, message', [
    (torch.ones(8), {}, r'length 2\.828, expected a unit vector of 8'), (vectors(1, width=4)[0], {}, r'\(4,\)'),
    (torch.full((8,), torch.nan), {}, 'length nan'), (vectors(1)[0], dict(tags=['a']), "'tags' is"),
    (vectors(1)[0], dict(gaussians='many'), "'gaussians' cannot be stored"),
    (vectors(1)[0], dict(quality='good'), "'quality' is string, in the index it is double"),
    (vectors(1)[0], {'a b': 1}, "'a b'"), (vectors(1)[0], dict(category='\ud800'), "'category' cannot be stored")])
def test_wrong_rows_are_refused_and_the_others_kept(tmp_path, embedding, metadata, message):
    paths = files(tmp_path / 'splats', 3)
    with IndexWriter(tmp_path / 'index', CARD) as index:
        index.add(paths[0], vectors(1)[0], quality=31.5)
        with pytest.raises(ValueError, match=message):
            index.add(paths[1], embedding, **metadata)
        index.add(paths[2], vectors(1)[0], quality=31)
    assert SearchIndex.load(tmp_path / 'index').table['quality'].to_pylist() == [31.5, 31]


def write_until(instant, folder, paths):
    """Write in a child process that is killed when it renames a file for that time; return its status."""
    child = os.fork()
    if not child:
        count, replace = iter(range(1, 1000)), os.replace
        os.replace = lambda *names: (next(count) == instant and os.kill(os.getpid(), signal.SIGKILL), replace(*names))
        try:
            write(folder, paths, vectors(len(paths)), flush_rows=3)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.filterwarnings('ignore:.*fork')
@pytest.mark.parametrize('instant', range(1, 27))
def test_a_killed_writer_leaves_a_state_and_resumes(tmp_path, instant):
    paths, folder = files(tmp_path / 'splats', 8), tmp_path / 'index'
    write(tmp_path / 'whole', paths, vectors(8))
    status, kept = write_until(instant, folder, paths), 0
    assert status == (-signal.SIGKILL if instant < 26 else 0)
    if exists(folder):
        found = SearchIndex.load(folder)
        kept = len(found)
        assert kept in (0, 3, 6, 8) and found.paths == tuple(paths[:kept])
        assert torch.allclose(found.embeddings, vectors(8)[:kept], atol=1e-3)
    with IndexWriter(folder, CARD, 4) as index:
        assert index.outdated(paths) == paths[kept:]
        for path in paths[kept:]:
            index.add(path, vectors(8)[paths.index(path)])
    for name in ('img_emb/img_emb_00000.npy', 'img_emb/img_emb_00001.npy'):
        assert (folder / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    assert SearchIndex.load(folder).table == SearchIndex.load(tmp_path / 'whole').table


def exists(folder):
    return (folder / 'index.json').exists() or (folder / '.pending' / 'commit.json').exists()


def test_rows_are_written_while_others_are_added(tmp_path):
    paths = files(tmp_path / 'splats', 5)
    with IndexWriter(tmp_path / 'index', CARD, flush_rows=2) as index:
        for i, path in enumerate(paths):
            index.add(path, vectors(5)[i])
            if i:
                assert len(SearchIndex.load(tmp_path / 'index')) == (i + 1) // 2 * 2
        with pytest.raises(OSError, match='in use'), IndexWriter(tmp_path / 'index', CARD):
            pass
    assert len(SearchIndex.load(tmp_path / 'index')) == 5


def test_rows_of_a_slow_encoder_are_written_every_half_minute(tmp_path, monkeypatch):
    paths, seconds = files(tmp_path / 'splats', 5), iter([0, 10, 29, 31, 31, 40, 60, 99])
    monkeypatch.setattr('clipgs_plugin.search.writer.time', SimpleNamespace(monotonic=lambda: next(seconds)))
    with IndexWriter(tmp_path / 'index', CARD) as index:  # at 0 s
        for path, embedding, kept in zip(paths, vectors(5), (None, None, 3, 3, 3)):
            index.add(path, embedding)
            assert (len(SearchIndex.load(tmp_path / 'index')) if exists(tmp_path / 'index') else None) == kept
    assert len(SearchIndex.load(tmp_path / 'index')) == 5


def test_an_emptied_index_has_the_new_card_and_no_other_file_is_lost(tmp_path):
    folder, other = tmp_path / 'index', IndexCard('another', 4)
    write(folder, files(tmp_path / 'splats', 10), vectors(10))
    (folder / 'img_emb' / 'mine.npy').write_text('mine')
    empty_index(folder, other)
    assert len(SearchIndex.load(folder)) == 0 and SearchIndex.load(folder).card == other
    assert sorted(path.name for path in folder.rglob('*') if path.is_file()) == ['index.json', 'mine.npy']
    write(folder, files(tmp_path / 'splats', 3), vectors(3, width=4), card=other)
    assert len(SearchIndex.load(folder)) == 3
    with pytest.raises(FileNotFoundError, match='is not an index'):
        empty_index(tmp_path / 'splats', other)
