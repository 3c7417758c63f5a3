import pytest
import torch
from index_files import clustered, write_rows
from torch.nn.functional import normalize

from clipgs_plugin.search import SearchIndex, vectors
from clipgs_plugin.search.partition import Partition

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


@pytest.fixture(scope='module')
def coded(tmp_path_factory):
    """An index with codes, of which a sixth of the rows are nearly others, and which has some rows without codes."""
    pytest.importorskip('faiss')
    from clipgs_plugin.search import building
    folder, rows = tmp_path_factory.mktemp('coded') / 'index', clustered(640, 16)
    cosines = torch.linspace(0.95, 1, 100)[:, None]
    away = normalize(rows[200:300] - (rows[200:300] * rows[:100]).sum(1, keepdim=True) * rows[:100], dim=1)
    rows[500:600] = cosines * rows[:100] + (1 - cosines ** 2).sqrt() * away
    write_rows(folder, rows[:600])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, 'MIN_ROWS', 600)
        patch.setattr(building, 'PARTS', 8)  # of two axes, of which duplicates need one
        building.build_approximate(folder)
    write_rows(folder, rows[600:], first=600)
    return folder


@pytest.mark.filterwarnings('ignore:.*covers')
@pytest.mark.parametrize('threshold', [0.9, 0.97, 0.995, 1])
def test_codes_change_nothing_but_the_time(coded, monkeypatch, threshold):
    monkeypatch.setattr('clipgs_plugin.search.partition.STEP', 48)
    index = SearchIndex.load(coded)
    found = index.duplicates(threshold)
    assert found == index.duplicates(threshold, exact=True) and any({99, 599} <= set(group) for group in found)


@pytest.mark.filterwarnings('ignore:.*covers')
def test_few_pairs_are_compared_and_none_is_missed(coded):
    index, pairs, reach = SearchIndex.load(coded), 0, 0.0632  # of a cosine of 0.998
    partition = Partition(index._vectors, index.approximate.tables)
    near = set()
    for own, others in partition.near(reach):
        pairs += len(own) * len(others)
        near |= {(i, j) for a, b in partition.within(own, others, reach) for i, j in zip(a.tolist(), b.tolist())}
    assert pairs < 0.1 * 640 ** 2
    cosines = index.embeddings @ index.embeddings.T
    assert all((i, j) in near or (j, i) in near for i, j in (cosines >= 0.998).nonzero().tolist())


def test_many_copies_of_one_object_are_one_group(monkeypatch):
    monkeypatch.setattr('clipgs_plugin.search.duplicates.STEP', 64)  # of 180,300 pairs
    rows = torch.cat([clustered(1).expand(600, 8), torch.eye(8)])
    assert SearchIndex(rows, tuple(map(str, range(608))), 'm').duplicates(0.999) == [list(range(600))]
