"""Bootstrap intervals of differences, with known answers."""
import pytest
import torch

from clipgs_plugin.evaluation.bootstrap import paired_difference


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize('shape', [(5,), (1, 40), (5, 40)])
def test_a_constant_difference_has_no_spread(shape):
    first = drawn(*shape)
    found = paired_difference(first, first + 3)
    assert (found.mean, found.low, found.high) == pytest.approx((3, 3, 3)) and found.clear


def test_exchanged_experiments_have_the_opposite_interval():
    first, second = drawn(4, 30), drawn(4, 30, seed=1)
    found, opposite = paired_difference(first, second), paired_difference(second, first)
    assert (found.mean, found.low, found.high) == pytest.approx((-opposite.mean, -opposite.high, -opposite.low))
    assert found.low < found.mean < found.high


def test_seeds_alone_have_about_students_interval():
    first, second = drawn(8), drawn(8, seed=1)
    found, difference = paired_difference(first, second), second - first
    half = 2.3646 * difference.std() / 8 ** 0.5  # the quantile of 7 degrees of freedom
    assert found.high - found.low == pytest.approx(2 * half.item(), rel=0.1)


def test_one_seed_has_the_interval_of_its_objects():
    first, second = torch.zeros(1, 400), (drawn(1, 400) > 0).double()
    found = paired_difference(first, second)
    half = 1.96 * second.std() / 20
    assert found.mean == second.mean() and found.high - found.low == pytest.approx(2 * half.item(), rel=0.05)


def test_objects_are_drawn_once_for_all_seeds():
    """Equal answers of all seeds are no more evidence than those of one."""
    answers = (drawn(1, 100) > 0).double()
    one, five = (paired_difference(torch.zeros(count, 100), answers.expand(count, 100)) for count in (1, 5))
    assert five.high - five.low == pytest.approx(one.high - one.low, rel=0.1)


@pytest.mark.parametrize('seed_spread, object_spread', [(1.0, 0.0), (0.0, 1.0), (0.3, 1.0)])
def test_the_interval_covers_the_truth_in_about_95_of_100(seed_spread, object_spread):
    generator = torch.Generator().manual_seed(0)
    covered, trials = 0, 200
    for _ in range(trials):
        effects = [spread * torch.randn(*shape, generator=generator, dtype=torch.float64)
                   for spread, shape in ((seed_spread, (5, 1)), (object_spread, (1, 50)), (0.5, (5, 50)))]
        second = 2 + sum(effects)
        found = paired_difference(torch.zeros_like(second), second, resamples=500)
        covered += found.low <= 2 <= found.high
    assert 0.9 <= covered / trials <= 0.99


def test_equal_seeds_give_equal_intervals_whatever_else_is_drawn():
    first, second = drawn(3, 20), drawn(3, 20, seed=1)
    found = paired_difference(first, second)
    torch.rand(5)
    assert paired_difference(first, second) == found != paired_difference(first, second, seed=1)


@pytest.mark.parametrize('first, second', [((3,), (4,)), ((2, 5), (2, 4)), ((0,), (0,)), ((1, 2, 3), (1, 2, 3))])
def test_results_that_do_not_pair_are_refused(first, second):
    with pytest.raises(ValueError, match='expected two of'):
        paired_difference(torch.zeros(first), torch.zeros(second))
