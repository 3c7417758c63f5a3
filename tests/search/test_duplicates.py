import pytest
import torch
from index_files import clustered, write_rows
from torch.nn.functional import normalize

from clipgs_plugin.search import SearchIndex, vectors

COPIES = {3: [40, 41], 7: [42], 12: [43]}


def planted():
    """Vectors of which some are nearly those of others, and a chain."""
    found = normalize(torch.randn(46, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    for original, copies in COPIES.items():
        for copy in copies:
            found[copy] = normalize(found[original] + 0.01 * found[copy], dim=0)
    found[44] = normalize(found[12] + 0.2 * found[20], dim=0)  # close to 12, and 45 to it, but 45 less to 12
    found[45] = normalize(found[12] + 0.4 * found[20], dim=0)
    return found


def groups_of(found, threshold):
    """Groups by a plain loop."""
    group = list(range(len(found)))
    for i in range(len(found)):
        for j in range(i):
            if float(found[i].double() @ found[j].double()) >= threshold:
                group = [group[j] if g == group[i] else g for g in group]
    members = [[i for i in range(len(found)) if group[i] == g] for g in sorted(set(group))]
    return sorted((m for m in members if len(m) > 1), key=lambda m: (-len(m), m))


@pytest.mark.parametrize('step', [7, 8192])
@pytest.mark.parametrize('threshold', [0.97, 0.999, 0.5])
def test_groups_are_those_of_a_plain_loop(tmp_path, monkeypatch, threshold, step):
    monkeypatch.setattr(vectors, 'STEP', step)
    write_rows(tmp_path / 'index', planted(), rows_per_shard=20)
    index = SearchIndex.load(tmp_path / 'index')
    expected = groups_of(index.embeddings, threshold)
    assert index.duplicates(threshold) == expected and [3, 40, 41] in expected
    assert index.duplicates(0.97)[0] == [12, 43, 44, 45]  # the chain


def test_equal_vectors_are_duplicates_at_one(tmp_path):
    rows = clustered(5)[[0, 1, 0, 2, 1]]
    assert SearchIndex(rows, 'abcde', 'm').duplicates(1) == [[0, 2], [1, 4]]
    with pytest.raises(ValueError, match=r'threshold 1\.5'):
        SearchIndex(rows, 'abcde', 'm').duplicates(1.5)


def test_codes_find_the_groups_of_a_large_index(tmp_path, monkeypatch):
    pytest.importorskip('faiss')
    from clipgs_plugin.search import build_approximate
    monkeypatch.setattr('clipgs_plugin.search.building.MIN_ROWS', 600)
    rows = clustered(600, 16)
    rows[500:] = normalize(rows[:100] + 1e-3 * rows[100:200], dim=-1)
    write_rows(tmp_path / 'index', rows)
    build_approximate(tmp_path / 'index')
    index = SearchIndex.load(tmp_path / 'index')
    exact = {tuple(group) for group in index.duplicates(0.9995, exact=True)}
    found = {tuple(group) for group in index.duplicates(0.9995)}
    assert len(exact) >= 90 and len(found & exact) >= 0.97 * len(exact)
