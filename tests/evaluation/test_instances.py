"""Metrics of found objects; all expected values are counted by hand."""
import math

import pytest
import torch

from clipgs_plugin.evaluation import match_instances


def labels(*runs):
    """Labels as runs of (label, count)."""
    return torch.cat([torch.full((count,), label) for label, count in runs])


def test_the_truth_itself_is_perfect_whatever_its_numbers():
    truth = labels((0, 10), (1, 4), (2, 6))
    found = labels((-1, 10), (7, 4), (3, 6))
    match = match_instances(found, truth)
    assert match.true_ids.tolist() == [1, 2] and match.found_ids.tolist() == [3, 7]
    assert match.match.tolist() == [1, 0] and match.matched_ious.tolist() == [1, 1]
    assert match.recall() == match.precision() == 1 and match.purities.tolist() == [1, 1]


def test_missed_objects_and_found_background():
    truth = labels((0, 10), (1, 4), (2, 6))
    found = labels((5, 10), (0, 3), (-1, 1), (-1, 6))  # a floor as an object, three quarters of 1, nothing of 2
    match = match_instances(found, truth)
    assert match.match.tolist() == [0, -1] and match.matched_ious.tolist() == [0.75, 0]
    assert match.recall() == 0.5 and match.precision() == 0.5
    assert match.purities.tolist() == [1, 0]
    assert match.recall(0.75) == 0.5 and match.recall(0.76) == 0


def test_merged_objects_count_once():
    truth = labels((1, 5), (2, 5))
    match = match_instances(labels((0, 10)), truth)
    assert match.ious.tolist() == [[0.5], [0.5]]  # a tie at the threshold
    assert sorted(match.match.tolist()) == [-1, 0]
    assert match.recall() == 0.5 and match.precision() == 1 and match.purities.tolist() == [0.5]


def test_of_a_split_object_one_piece_counts():
    truth = labels((0, 2), (1, 8))
    match = match_instances(labels((-1, 2), (0, 5), (1, 3)), truth)
    assert match.ious.tolist() == [[5 / 8, 3 / 8]] and match.match.tolist() == [0]
    assert match.recall() == 1 and match.precision() == 0.5 and match.purities.tolist() == [1, 1]
    halves = match_instances(labels((-1, 2), (0, 4), (1, 4)), truth)
    assert halves.recall() == 1 and halves.precision() == 0.5


def test_the_sum_of_overlaps_decides_and_not_the_first_pair():
    # Found object 0 overlaps true 1 most, but true 2 has nothing else.
    truth = labels((1, 6), (2, 4))
    found = torch.tensor([0, 0, 0, 0, 1, 1, 0, 0, 0, 0])
    match = match_instances(found, truth)
    assert match.ious.tolist() == [[4 / 10, 2 / 6], [4 / 8, 0]]
    assert match.match.tolist() == [1, 0]  # 1/3 + 1/2 over 2/5
    assert match.purities.tolist() == [0.5, 1]


def test_unsure_gaussians_count_nowhere():
    truth = labels((-1, 9), (1, 4))
    match = match_instances(labels((0, 5), (1, 4), (0, 4)), truth)
    assert match.found_ids.tolist() == [0] and match.recall() == 1 and match.purities.tolist() == [1]


def test_nothing_true_and_nothing_found():
    nothing = match_instances(labels((-1, 4)), labels((1, 4)))
    assert nothing.recall() == 0 and math.isnan(nothing.precision()) and nothing.matched_ious.tolist() == [0]
    empty = match_instances(labels((2, 4)), labels((0, 4)))
    assert math.isnan(empty.recall()) and empty.precision() == 0 and empty.purities.tolist() == [0]


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match=r'\(3,\).*\(2,\)'):
        match_instances(torch.zeros(3).long(), torch.zeros(2).long())
    with pytest.raises(ValueError, match='-2'):
        match_instances(labels((-2, 2)), labels((1, 2)))
