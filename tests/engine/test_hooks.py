import logging
import random
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipgs_plugin.engine import ProgressBarHook, SafeCheckpointHook, SeedHook


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def draw_at(seed, iteration, hook_seed=None):
    SeedHook(hook_seed).before_train_iter(SimpleNamespace(seed=seed, iter=iteration, epoch=0), 0)
    return draws()


def test_seed_depends_on_seed_and_iteration_and_on_nothing_before():
    first = draw_at(5, 17)
    random.random(), torch.rand(7), np.random.rand(2)
    assert draw_at(5, 17) == first
    assert draw_at(9, 17, hook_seed=5) == first
    for other in (draw_at(6, 17), draw_at(5, 18)):
        assert all(a != b for a, b in zip(first, other))


def test_ranks_and_epochs_draw_differently(monkeypatch):
    first = draw_at(5, 0)
    SeedHook().before_train_epoch(SimpleNamespace(seed=5, epoch=0, iter=0))
    assert draws()[0] != first[0]
    monkeypatch.setattr('clipgs_plugin.engine.hooks.get_rank', lambda: 1)
    assert draw_at(5, 0)[0] != first[0]


def test_checkpoint_loads_with_plain_torch_load(tmp_path):
    from mmengine.logging import HistoryBuffer
    info = {'best': np.float64(1.5), 'counts': [np.int64(2), (np.float32(0.5), 'x')], 'array': np.arange(3), 'n': 4}
    keys = OrderedDict((key, True) for key in [*info, 'loss'])
    checkpoint = {
        'state_dict': {'w': torch.ones(2)}, 'meta': {'epoch': 3, 'dataset_meta': {'classes': ('a', np.str_('b'))}},
        'message_hub': {'log_scalars': {'loss': HistoryBuffer([1.0], [1])}, 'runtime_info': OrderedDict(info),
                        'resumed_keys': keys}}
    path = tmp_path / 'checkpoint.pth'
    torch.save(checkpoint, path)
    with pytest.raises(Exception, match='Weights only load failed'):
        torch.load(path)
    SafeCheckpointHook().before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, path)
    loaded = torch.load(path)
    assert loaded['meta'] == {'epoch': 3, 'dataset_meta': {'classes': ('a', 'b')}}
    assert loaded['message_hub']['runtime_info'] == {'best': 1.5, 'counts': [2, (0.5, 'x')], 'array': [0, 1, 2], 'n': 4}
    assert list(loaded['message_hub']['resumed_keys']) == list(info)
    assert len(keys) == len(info) + 1  # the running message hub's own dict is left alone


def test_progress_bar_hands_the_log_streams_back():
    stream = sys.__stdout__
    runner = SimpleNamespace(max_iters=2, iter=0, epoch=0, max_epochs=1, logger=logging.Logger('bar'))
    runner.logger.addHandler(logging.StreamHandler(stream))
    hook = ProgressBarHook(enabled=True)
    hook.before_train(runner)
    hook.after_train_iter(runner, 0, outputs={'loss': torch.tensor(1.0)})
    assert hook._bar.tasks[0].completed == 1 and hook._bar.tasks[0].fields['loss'] == '1.0000'
    hook.after_train(runner)
    assert hook._bar is None and runner.logger.handlers[0].stream is stream
    quiet = ProgressBarHook(enabled=False)
    quiet.before_train(runner)
    quiet.after_train_iter(runner, 0, outputs={'loss': 1.0})
    assert quiet._bar is None
