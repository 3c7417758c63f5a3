import json
import shutil
import sys
import warnings
from dataclasses import astuple

import numpy as np
import pytest
import torch
from index_files import clustered, write_rows

from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex, build_approximate, building

pytest.importorskip('faiss')
ROWS, WIDTH = 4500, 16


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('approximate') / 'index'
    write_rows(folder, clustered(ROWS, WIDTH), rows_per_shard=1000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, 'LEAST_CODES', 1)
        record = build_approximate(folder)
    assert min(astuple(record.recall)) >= 0.95 and record.probes < 128 and record.candidates == 200
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / 'index')
    return tmp_path / 'index'


def recall(index, where=(), seed=9):
    hits = []
    for query in clustered(20, WIDTH, seed=seed):
        exact = {match.row for match in index.find(query, 10, where, exact=True)}
        hits.append(len(exact & {match.row for match in index.find(query, 10, where)}) / 10)
    return np.mean(hits)


@pytest.fixture
def no_exact_search(monkeypatch):
    """Without the exact search of few rows, which would hide an error of the codes."""
    monkeypatch.setattr('clipgs_plugin.search.index.FEW', 0)


def test_nearly_all_neighbours_are_found_with_their_exact_cosines(folder):
    index = SearchIndex.load(folder)
    assert recall(index) >= 0.95
    query = clustered(1, WIDTH, seed=3)[0]
    for match in index.find(query):
        assert match.score == pytest.approx(float(index.vectors([match.row])[0] @ query), abs=1e-6)


def test_codes_are_read_in_place_of_all_rows(folder, monkeypatch):
    index = SearchIndex.load(folder)
    assert index.approximate.share == 1
    seen = []
    take = index._vectors.take
    monkeypatch.setattr(index._vectors, 'take', lambda rows: (seen.append(len(rows)), take(rows))[1])
    monkeypatch.setattr(index._vectors, 'steps', None)
    index.find(clustered(1, WIDTH)[0])
    assert seen == [200]


def test_queries_far_from_all_rows_are_answered_as_well(folder):
    index = SearchIndex.load(folder)
    queries = torch.nn.functional.normalize(torch.randn(60, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
    assert np.median([index.find(query)[0].score for query in queries]) < 0.8
    assert np.mean([match.row in {each.row for each in index.find(query)}
                    for query in queries for match in index.find(query, exact=True)]) >= 0.95


def test_a_small_index_is_read_as_far_as_that_takes_no_time(copy, monkeypatch):
    assert build_approximate(copy).probes == 128
    monkeypatch.setattr(building, 'LEAST_CODES', ROWS / 4)
    assert 32 <= build_approximate(copy).probes < 128


def test_recall_is_measured_without_the_rows_that_a_query_is_made_of(folder):
    vectors = SearchIndex.load(folder)._vectors
    queries, own = building._queries(vectors, 0)
    cosines = torch.stack([(vectors.take(list(rows)) @ query).min() for query, rows in zip(queries, own)]).split(100)
    assert [len(rows) for rows in own] == [1] * 100 + [2] * 100 + [1] * 100
    assert cosines[0].min() > 0.999 and cosines[1].min() > 0.3 and (cosines[2] - 0.3).abs().max() < 1e-3
    assert building._others([5, 3, *range(10, 30)], (3, 5)) == list(range(10, 20))


def test_an_old_faiss_and_codes_of_an_earlier_version_are_refused(copy, monkeypatch):
    import faiss
    (copy / 'approximate.json').write_text('{"version": 1}')
    with pytest.raises(ValueError, match=r'is of version 1, expected 2; build it again with tools/search\.py'):
        SearchIndex.load(copy).find(clustered(1, WIDTH)[0])
    build_approximate(copy)
    monkeypatch.setattr(faiss, '__version__', '1.12.0')
    with pytest.warns(UserWarning, match=r'needs faiss 1\.13 or newer.*this is 1\.12\.0.*searched exactly'):
        SearchIndex.load(copy).find(clustered(1, WIDTH)[0])


@pytest.mark.parametrize('name', ['approximate.npz', 'approximate.codes'])
def test_codes_that_are_not_those_that_were_written_are_found_and_built_again(copy, name):
    assert len(SearchIndex.load(copy, verify=True)) == ROWS
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf'{name} is not the file.*the vectors are sound, build it again'):
        SearchIndex.load(copy, verify=True)
    (copy / name).unlink()
    for use in (lambda: SearchIndex.load(copy, verify=True), lambda: SearchIndex.load(copy).approximate):
        with pytest.raises(FileNotFoundError, match=rf'{name} does not exist, .* vectors are sound, build it again'):
            use()
    build_approximate(copy)
    assert len(SearchIndex.load(copy, verify=True)) == ROWS


def test_more_neighbours_than_rows_are_all_rows(folder):
    assert len(SearchIndex.load(folder).find(clustered(1, WIDTH)[0], 10 ** 12)) == ROWS


def test_conditions_hold_for_what_the_codes_find(folder, no_exact_search):
    index = SearchIndex.load(folder)
    assert recall(index, 'category=chair') >= 0.95 and recall(index, 'gaussians<1000') >= 0.95
    found = index.find(clustered(1, WIDTH)[0], 10, ['category=chair', 'gaussians>=4400'])
    assert {match.metadata['category'] for match in found} == {'chair'}
    assert min(match.metadata['gaussians'] for match in found) >= 4400 and len(found) == 10


@pytest.mark.filterwarnings('ignore:.*covers')
def test_rows_that_came_later_are_found_and_gone_ones_are_not(copy):
    new = clustered(5, WIDTH, seed=11)
    write_rows(copy, new, first=ROWS, rows_per_shard=1000)  # the first joins the last shard, which had 500 rows
    gone = SearchIndex.load(copy).find(clustered(1, WIDTH, seed=2)[0])[0].path
    with IndexWriter(copy, IndexCard('clipgs_toy', WIDTH)) as writer:
        writer.drop([gone])
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter('always')
        index = SearchIndex.load(copy)
        assert index.find(new[4])[0].path == f'/objects/{ROWS + 4}.ply'
    assert 'approximate.json covers 89% of the rows' in str(notes[0].message)
    assert '--build-approximate' in str(notes[0].message)
    assert gone not in [match.path for match in index.find(clustered(1, WIDTH, seed=2)[0], 50)]
    assert recall(index) >= 0.95


@pytest.mark.filterwarnings('ignore:.*covers')
def test_codes_of_other_rows_are_not_used(copy, monkeypatch):
    with IndexWriter(copy, IndexCard('clipgs_toy', WIDTH), 1000) as writer:
        writer.drop([f'/objects/{i:04d}.ply' for i in range(0, 40, 2)])
        writer.compact()
    index = SearchIndex.load(copy)
    assert index.approximate.share == 0
    query = clustered(1, WIDTH)[0]
    assert [match.row for match in index.find(query)] == [match.row for match in index.find(query, exact=True)]
    build_approximate(copy)
    assert SearchIndex.load(copy).approximate.share == 1


def test_a_read_only_index_answers_and_says_that_it_cannot_be_written(copy, permissions_hold):
    expected = SearchIndex.load(copy)
    query = clustered(1, WIDTH, seed=3)[0]
    answers = expected.find(query), expected.find(query, 5, 'gaussians>=4000'), expected.duplicates(0.9999)
    for path in (copy, *copy.rglob('*')):
        path.chmod(0o555 if path.is_dir() else 0o444)
    index = SearchIndex.load(copy)
    assert (index.find(query), index.find(query, 5, 'gaussians>=4000'), index.duplicates(0.9999)) == answers
    assert index.approximate.share == 1 and index.batches(1000).read_all().num_rows == ROWS
    for write in (lambda: build_approximate(copy), lambda: write_rows(copy, clustered(1, WIDTH))):
        with pytest.raises(PermissionError) as refused:
            write()
        assert refused.value.filename == str(copy)
    for path in (copy, *copy.rglob('*')):
        path.chmod(0o755)


def test_without_faiss_the_search_is_exact_and_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, 'faiss', None)
    index = SearchIndex.load(folder)
    with pytest.warns(UserWarning, match='faiss-cpu.*searched exactly'):
        found = index.find(clustered(1, WIDTH)[0])
    assert found == index.find(clustered(1, WIDTH)[0], exact=True)
    with pytest.raises(ImportError, match='pip install -U faiss-cpu'):
        build_approximate(folder)


def test_codes_whose_measurement_was_interrupted_read_all_lists(folder, tmp_path, monkeypatch):
    index = shutil.copytree(folder, tmp_path / 'index', ignore=shutil.ignore_patterns('approximate*'))
    monkeypatch.setattr('clipgs_plugin.search.building._tuned', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_approximate(index)
    found = SearchIndex.load(index, verify=True)
    assert found.approximate.record.probes == len(found.approximate.tables.centers) and recall(found) >= 0.99


def test_small_indexes_are_not_coded(tmp_path):
    write_rows(tmp_path / 'index', clustered(20, WIDTH))
    with pytest.raises(ValueError, match='has 20 rows'):
        build_approximate(tmp_path / 'index')


def tables(folder, **changes):
    with np.load(folder / 'approximate.npz') as arrays:
        content = dict(arrays)
    np.savez(folder / 'approximate.npz', **{**content, **changes})


def wrong_positions(folder):
    data = np.fromfile(folder / 'approximate.codes', np.uint8)
    data[:] = 255
    data.tofile(folder / 'approximate.codes')


@pytest.mark.parametrize('damage, message', [
    (lambda f: tables(f, sizes=np.full(128, 2 ** 40)), r'approximate\.npz does not agree'),
    (lambda f: tables(f, sizes=-np.ones(128, np.int64)), 'does not agree'),
    (lambda f: tables(f, mean=np.zeros(7, np.float32)), 'does not agree'),
    (lambda f: tables(f, mean=np.full(WIDTH, np.nan, np.float32)), 'not finite'),
    (lambda f: (f / 'approximate.codes').write_bytes(b'x' * 99), 'does not agree'),
    (lambda f: (f / 'approximate.json').write_text('{}'), r'approximate\.json: version is missing'),
    (lambda f: (f / 'approximate.json').write_text(json.dumps(
        {**json.loads((f / 'approximate.json').read_text()), 'probes': 0})), 'out of range')])
def test_damaged_codes_are_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(ValueError, match=message):
        SearchIndex.load(copy).find(clustered(1, WIDTH)[0])


def test_positions_beyond_the_rows_are_never_read(copy):
    wrong_positions(copy)
    index = SearchIndex.load(copy)
    found = index.find(clustered(1, WIDTH)[0])  # none is left of the codes, so all rows are compared
    assert [match.row for match in found] == [match.row for match in index.find(clustered(1, WIDTH)[0], exact=True)]
    assert torch.tensor([match.score for match in found]).isfinite().all()
