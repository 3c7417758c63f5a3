import numpy as np
import pytest
import torch

from clipgs_plugin import evaluation


def plain_rank(scores, positives):
    """By sorting: negatives before positives among equal scores, then the negatives before the first positive."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], positives[j]))
    first = next(place for place, j in enumerate(order) if positives[j])
    return 1 + first


@pytest.mark.parametrize('levels', [3, 1000])
def test_ranks_equal_a_plain_sort(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (60, 25)).astype(np.float32)  # three levels: ties in every row
    positives = rng.random((60, 25)) < 0.15
    positives[np.arange(60), rng.integers(0, 25, 60)] = True
    expected = [plain_rank(s, p) for s, p in zip(scores, positives)]
    assert evaluation.ranks(torch.tensor(scores), torch.tensor(positives)).tolist() == expected


def test_ties_are_pessimistic_and_positives_do_not_push_each_other_down():
    positives = torch.tensor([[True, False, False, False]])
    assert evaluation.ranks(torch.zeros(1, 4), positives).tolist() == [4]
    several = torch.tensor([[True, True, False, True]])
    assert evaluation.ranks(torch.tensor([[0.9, 0.8, 0.7, 0.1]]), several).tolist() == [1]
    assert evaluation.ranks(torch.tensor([[0.2, 0.1, 0.7, 0.1]]), several).tolist() == [2]


def test_scores_that_are_not_finite_and_queries_without_an_answer_are_refused():
    scores, positives = torch.zeros(3, 4), torch.eye(3, 4).bool()
    scores[1, 2] = torch.nan
    with pytest.raises(ValueError, match='1 of 3 queries'):
        evaluation.ranks(scores, positives)
    positives[2] = False
    with pytest.raises(ValueError, match='no positive, the first is 2'):
        evaluation.ranks(torch.zeros(3, 4), positives)


def test_equal_rows_give_equal_cosines_wherever_they_stand():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1, 129, generator=generator).expand(67, 129)
    others = torch.randn(33, 129, generator=generator)
    scores = evaluation.cosines(others, rows * 2.0 ** (torch.arange(67) % 5)[:, None])
    assert (scores == scores[:, :1]).all()


def test_topk_accuracy_equals_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((200, 7)), rng.integers(0, 7, 200)
    found = evaluation.topk_accuracy(torch.tensor(scores), torch.tensor(labels), (1, 3, 5))
    for k in (1, 3, 5):
        hits = sum(label in np.argsort(-row)[:k] for row, label in zip(scores, labels))
        assert found[k] == pytest.approx(100 * hits / 200)
    assert evaluation.topk_accuracy(torch.tensor(scores), torch.tensor(labels)) == found  # the usual k


def test_a_constant_scorer_gets_nothing():
    assert evaluation.topk_accuracy(torch.ones(5, 4), torch.arange(4).repeat(2)[:5], (1, 3)) == {1: 0.0, 3: 0.0}


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match='labels run from 0 to 4, expected 0 to 3 for 4 classes'):
        evaluation.topk_accuracy(torch.rand(5, 4), torch.arange(5))


def test_per_class_accuracy_leaves_empty_classes_out():
    found = evaluation.per_class_accuracy(torch.tensor([True, False, True, True]), torch.tensor([0, 0, 2, 2]), 4)
    assert found[[0, 2]].tolist() == [50, 100] and found[[1, 3]].isnan().all()


def test_retrieval_ranks_equal_a_loop_with_duplicates_and_do_not_depend_on_the_chunk():
    rng = np.random.default_rng(1)
    queries, gallery = rng.standard_normal((40, 8)), rng.standard_normal((40, 8))
    gallery[7] = gallery[3]  # equal entries: a tie for every query
    ids = rng.integers(0, 15, 40)
    expected = []
    for q, i in zip(queries, ids):
        scores = [np.float32(q @ g / np.linalg.norm(q) / np.linalg.norm(g)) for g in gallery]
        expected.append(plain_rank(scores, ids == i))
    arguments = [torch.tensor(x) for x in (queries, gallery, ids, ids)]
    for chunk in (1, 7, 1024):
        assert evaluation.retrieval_ranks(*arguments, chunk=chunk).tolist() == expected
    rank = torch.tensor(expected)
    assert evaluation.recall_at_k(rank, 5) == pytest.approx(100 * np.mean([r <= 5 for r in expected]))


def test_teacher_zero_shot_equals_a_loop():
    rng = np.random.default_rng(2)
    views, labels, classes = rng.standard_normal((30, 4, 6)), rng.integers(0, 5, 30), rng.standard_normal((5, 6))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    single = np.mean([np.argmax(unit(classes) @ unit(view)) == label
                      for object_views, label in zip(views, labels) for view in object_views])
    mean = np.mean([np.argmax(unit(classes) @ unit(object_views).mean(0)) == label
                    for object_views, label in zip(views, labels)])
    found = evaluation.teacher_zero_shot(torch.tensor(views), torch.tensor(labels), torch.tensor(classes))
    assert found == {'single_view': {1: pytest.approx(100 * single)}, 'mean_view': {1: pytest.approx(100 * mean)}}


def test_the_scale_of_a_view_breaks_no_tie_of_classes():
    # The mean of two mirrored unit views is as near to one class as to the other, and ties count against both.
    generator = torch.Generator().manual_seed(0)
    mirrored = torch.tensor([[3.0, 4.0], [4.0, 3.0]]) * (1 + torch.rand(50, 2, 1, generator=generator))
    for label in (0, 1):
        found = evaluation.teacher_zero_shot(mirrored, torch.full((50,), label), torch.eye(2))
        assert found['mean_view'] == {1: 0.0}
