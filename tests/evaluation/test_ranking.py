import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_plugin.evaluation import rank_gallery, rank_scores
from clipgs_plugin.evaluation.ranking import CHUNK_SCORES


def plain(scores, positives):
    """Rank and average precision by walking down the list, negatives before positives among equal scores."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], positives[j]))
    places = [place for place, j in enumerate(order, 1) if positives[j]]
    return places[0], sum(i / place for i, place in enumerate(places, 1)) / len(places)


def ranking(scores, positives):
    found = rank_scores(torch.tensor(scores), torch.tensor(positives))
    return found.ranks.tolist(), found.average_precisions.tolist()


@pytest.mark.parametrize('scores, positives, rank, precision', [
    ([.9, .5, .1], [1, 0, 0], 1, 1), ([.9, .5, .1], [0, 0, 1], 3, 1 / 3),
    ([.5, .5, .5], [1, 0, 0], 3, 1 / 3),                        # two negatives of the same score come first
    ([.9, .8, .7, .6], [1, 0, 1, 0], 1, (1 + 2 / 3) / 2), ([.9, .8, .7, .6], [0, 1, 0, 1], 2, (1 / 2 + 2 / 4) / 2),
    ([.9, .9, .7, .7], [1, 0, 0, 1], 2, (1 / 2 + 2 / 4) / 2),   # a tie at each positive
    ([.3, .3, .3], [1, 1, 1], 1, 1), ([.2], [1], 1, 1)])
def test_ranks_and_precisions_by_hand(scores, positives, rank, precision):
    assert ranking([scores], [[bool(p) for p in positives]]) == ([rank], [pytest.approx(precision)])


def random_case(levels, seed=0, queries=60, gallery=25):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (queries, gallery)).astype(np.float32)
    positives = rng.random((queries, gallery)) < rng.random((queries, 1))
    positives[np.arange(queries), rng.integers(0, gallery, queries)] = True
    return scores, positives


@pytest.mark.parametrize('levels', [3, 10 ** 6])
def test_ranks_and_precisions_equal_a_walk_down_the_list(levels):
    scores, positives = random_case(levels)
    ranks, precisions = zip(*(plain(*case) for case in zip(scores, positives)))
    found = ranking(scores, positives)
    assert found == (list(ranks), pytest.approx(precisions))


def test_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    scores, positives = random_case(10 ** 6, seed=1)
    scores += np.arange(25, dtype=np.float32) / 64  # scikit-learn has another rule for ties
    expected = [metrics.average_precision_score(p, s) for s, p in zip(scores, positives)]
    assert ranking(scores, positives)[1] == pytest.approx(expected)


def test_a_gallery_equals_brute_force_in_float64_for_every_chunk():
    rng = np.random.default_rng(2)
    queries, gallery = rng.standard_normal((45, 12)), rng.standard_normal((70, 12))
    gallery_ids = rng.integers(0, 20, 70)
    query_ids = rng.choice(gallery_ids, 45)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery)]
    expected = [plain(row, gallery_ids == i) for row, i in zip(unit[0] @ unit[1].T, query_ids)]
    arguments = [torch.tensor(x) for x in (queries, gallery, query_ids, gallery_ids)]
    for chunk in (1, 44, None):
        found = rank_gallery(*arguments, chunk=chunk)
        assert found.ranks.tolist() == [rank for rank, _ in expected]
        assert found.average_precisions.tolist() == pytest.approx([precision for _, precision in expected])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match='no positive, the first is 1'):
        rank_gallery(torch.eye(2), torch.eye(2), torch.tensor([0, 7]), torch.arange(2))
    with pytest.raises(ValueError, match='1 of 2 queries'):
        rank_gallery(torch.tensor([[1., 0], [torch.nan, 1]]), torch.eye(2), torch.arange(2), torch.arange(2))
    with pytest.raises(ValueError, match='no queries'):
        rank_gallery(torch.ones(0, 2), torch.eye(2), torch.arange(0), torch.arange(2))


GROWTH = """
from pathlib import Path
import torch
from clipgs_plugin.evaluation import rank_gallery, ranking

def read(kind):
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind + ':'))

ranking.CHUNK_SCORES = 2 ** 20
gallery, ids = torch.randn(10_000, 32, generator=torch.Generator().manual_seed(0)), torch.arange(10_000)
rank_gallery(gallery[:100], gallery, ids[:100], ids)  # what the first call loads
for queries, chunk in ((300, None), (800, None), (800, 800)):
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts anew
    before = read('VmRSS')
    rank_gallery(gallery[:queries], gallery, ids[:queries], ids, chunk=chunk)
    print(read('VmHWM') - before)
"""


def test_memory_is_bounded_by_the_block_and_not_by_the_queries():
    """Eight blocks need what three do; all at once would be fifteen bytes and more a score."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        pytest.skip('the system does not report the peak of memory')
    # A process of its own, since others have freed memory here, which it would take again without growing.
    run = subprocess.run([sys.executable, '-c', GROWTH], capture_output=True, text=True, check=True)
    three, eight, at_once = map(float, run.stdout.split())
    bound = 5 * 2 ** 20 * 8 / 2 ** 20 + 2 * 10_000 * 32 * 8 / 2 ** 20 + 15
    assert three < bound and eight < bound and at_once > 1.5 * bound
    # 50,000 objects of 1,024 numbers: the embeddings in float64 twice, and the blocks as they are by default.
    assert 2 * 50_000 * 1024 * 8 + 5 * CHUNK_SCORES * 8 < 1.3e9
