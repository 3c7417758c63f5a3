"""The benchmark of search on small indexes, without processes of its own."""
import re
import warnings

import numpy as np
import pytest
import torch
from index_files import clustered

from clipgs_plugin.search import SearchIndex
from clipgs_plugin.tools.benchmarks import near_duplicates, search
from clipgs_plugin.tools.benchmarks.search_world import World


def recall_of(case):
    return float(re.match(r'recall@10 ([\d.]+) ± ', case.note)[1])


def test_building_memory_times_and_recall_are_measured(tmp_path):
    pytest.importorskip('faiss')
    arguments = tmp_path, World(4200, 16, 20), torch.get_num_threads()
    writing, = search.write(*arguments)
    building, = search.build(*arguments)
    assert writing.ms > 0 and building.ms > 0 and 'recall@10 0.9' in building.note
    assert search.write(*arguments) == search.build(*arguments) == []  # since the folder has them
    cases = search.ask(*arguments)
    assert [(case.what.partition(': ')[2], case.way) for case in cases] == [
        (name, way) for name in ('query', 'query between clusters', 'far query', 'query where part=0')
        for way in ('exact', 'approximate')]
    for case in cases:
        if case.way == 'approximate':
            assert recall_of(case) >= 0.8 and case.budget_ms is None and case.times > 0
    index = SearchIndex.load(tmp_path / 'index')
    assert index.table['part'].to_pylist() == [i % 10 for i in range(4200)]


def test_the_memory_of_a_step_is_that_of_its_process():
    (size,), seconds, peak = search.measured(lambda mb: [np.ones(mb << 17).sum() / 2 ** 17], 300)
    assert size == 300 and seconds > 0 and 300 < peak < 300 + 8192


def test_vectors_have_the_cosines_that_are_stated():
    world, rng = World(100_000, 1024), np.random.default_rng(0)
    rows = world.draw(400, rng)
    cosines = (rows @ rows.T)[np.triu_indices(400, 1)]
    assert float(cosines.median()) == pytest.approx(0.3, abs=0.05)


def test_centres_are_those_of_a_file(tmp_path):
    np.savez(tmp_path / 'e.npz', embeddings=np.eye(4, dtype=np.float32)[:3])
    world = World(100, 4, centers=str(tmp_path / 'e.npz'))
    assert np.array_equal(world.places[0], np.eye(4, dtype=np.float32)[:3])
    rows = world.draw(50, np.random.default_rng(0))
    assert torch.allclose(rows.norm(dim=1), torch.ones(50)) and float(rows[:, 3].abs().max()) < 1e-5


def test_planted_pairs_are_found_and_counted(tmp_path):
    pytest.importorskip('faiss')
    arguments = tmp_path, World(4200, 16, 20), torch.get_num_threads()
    search.write(*arguments, planted=True)
    search.build(*arguments)
    rows, pairs, lists = near_duplicates.near_duplicates(*arguments, cosine=0.97)
    vectors = SearchIndex.load(tmp_path / 'index').embeddings
    cosines = (vectors[63::64] * vectors[62::64]).sum(1)
    assert 0.949 < cosines.min() < 0.965 and 0.99 < cosines.max() < 1.00001
    planted = int((cosines >= 0.97).sum())
    assert f'{planted} of {planted} planted pairs, the groups of all pairs' in lists.note
    assert [case.way for case in (rows, pairs, lists)] == ['faiss, row by row', 'all pairs', 'by lists']
    assert lists.times > 0 and rows.note == '200 rows, scaled'


def test_queries_are_rows_that_are_left_out_of_the_index_and_texts_of_its_model(tmp_path):
    pytest.importorskip('faiss')
    warnings.simplefilter('ignore')  # on the words that the model knows
    own = str(tmp_path / 'own.npz')
    SearchIndex(clustered(4300, 128), [f'{i}.ply' for i in range(4300)], 'clipgs_toy').save(own)
    (tmp_path / 'texts.txt').write_text('a red chair\n\na blue car\n')
    world = World.around(str(tmp_path / 'texts.txt'), rows=1, width=1, queries=20, seed=3, index=own)
    assert str(world) == '4,280 x 128' and world.texts.shape == (2, 128)
    kept, asked = world.held_out
    assert torch.cdist(asked, kept).min() > 1e-4 and len(torch.cat([kept, asked]).unique(dim=0)) == 4300
    search.write(tmp_path, world, 1)
    assert torch.allclose(SearchIndex.load(tmp_path / 'index').embeddings, kept, atol=2e-3)
    search.build(tmp_path, world, 1)
    cases = search.ask(tmp_path, world, 1)
    assert [case.what.partition(': ')[2] for case in cases if case.way == 'exact'] == [
        'object', 'mean of two objects', 'far query', 'text']
    assert min(recall_of(case) for case in cases if case.way == 'approximate') >= 0.8
    with pytest.raises(ValueError, match='4,300 rows, of which 4300 cannot be the queries'):
        World.around('', rows=1, width=1, queries=4300, index=own)
    with pytest.raises(ValueError, match='name one by --index or --centers'):
        World.around(str(tmp_path / 'texts.txt'), rows=1, width=1)
