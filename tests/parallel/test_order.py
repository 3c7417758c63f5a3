"""Outcomes come in the order of the items, whatever order workers end in and whatever they die on."""
from collections import Counter

import pytest

from clipgs_plugin.parallel import ProcessDied, TimedOut, in_order
from clipgs_plugin.parallel.order import LOOKAHEAD


class FakeExecutor:
    """Executor that ends chunks in another order than they began, and whose workers die on some items."""

    def __init__(self, slots, deaths, death=None):
        self.slots, self.deaths, self.made, self.most, self.closed = slots, Counter(deaths), [], 0, False
        self.chunks, self.death = {}, death or ProcessDied()

    def submit(self, chunk, alone):
        self.made.append(list(chunk))
        assert alone == any(self.made[-1][0] in items for items in self.made[:-1])
        self.chunks[len(self.made)] = chunk
        return len(self.made)

    def next(self, in_progress):
        self.most = max(self.most, len(in_progress))
        last = max(in_progress)
        for item in self.chunks[last]:
            if sum(item in items for items in self.made) > 1:  # retried
                assert len(in_progress) == 1
            if self.deaths[item]:
                self.deaths[item] -= 1
                return last, self.death
        return last, [f'{item} made' for item in self.chunks[last]]

    def close(self):
        self.closed = True


def failed(item, error):
    return type(error).__name__, item, str(error)


@pytest.mark.parametrize('slots', [1, 4])
@pytest.mark.parametrize('size', [1, 3])
def test_order_is_kept_and_items_of_a_dead_worker_are_retried_alone(slots, size):
    items = [str(i) for i in range(30)]
    executor, taken = FakeExecutor(slots, {'4': 1, '5': 2, '22': 2}), []
    chunks = (taken.append(i) or tuple(items[i:i + size]) for i in range(0, 30, size))
    found = []
    for outcome in in_order(executor, chunks, failed):
        found.append(outcome)
        assert len(taken) * size - len(found) <= (LOOKAHEAD * slots + 1) * size  # in progress or waiting
    lost = [failed(item, ProcessDied()) for item in ('5', '22')]
    assert found == [lost[('5', '22').index(item)] if item in ('5', '22') else f'{item} made' for item in items]
    assert executor.most == min(slots, 30 // size) and executor.closed
    assert executor.made.count(['4']) == (2 if size == 1 else 1) and ['5'] in executor.made


def test_an_item_alone_over_the_time_limit_is_not_retried():
    items = ['0', '1', '2']
    for size, made in ((1, [['0'], ['1'], ['2']]), (3, [['0', '1', '2'], ['0'], ['1'], ['2']])):
        executor = FakeExecutor(3, {'1': 9}, TimedOut(7.0))
        outcomes = list(in_order(executor, [tuple(items[i:i + size]) for i in range(0, 3, size)], failed))
        assert executor.made == made
        assert outcomes[::2] == ['0 made', '2 made'] and outcomes[1][:2] == ('TimedOut', '1')
        assert outcomes[1][2].startswith('it took over 7 s; give more time')
