"""Runs that are killed at each operation on files while they write checkpoints."""
import builtins
import os
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from test_training import CONFIG, HERE, toy_on_the_path_and_one_thread  # noqa: F401

from clipgs_plugin.tools import train as train_tool

OPTIONS = ['--cfg-options', 'train_cfg.max_epochs=3', 'log_level=WARNING',
           'default_hooks.checkpoint.save_best=toy/mean', 'val_evaluator._delete_=True',
           'val_evaluator.type=EngineToyMean', 'vis_backends=[]', 'visualizer.vis_backends=[]']


class Killed(BaseException):
    """The end of a process, after which it does nothing more."""


class Killer:
    """Ends a run before or within its n-th operation on files of checkpoints."""

    def __init__(self, monkeypatch, moment):
        self.moment, self.count = moment, 0
        for module, name in ((os, 'replace'), (os, 'remove'), (os, 'unlink')):
            monkeypatch.setattr(module, name, self.around(getattr(module, name)))
        monkeypatch.setattr(LocalBackend, 'put', self.put)
        self.open = builtins.open
        monkeypatch.setattr(builtins, 'open', self.open_pointer)

    def step(self):
        self.count += 1
        if self.moment is not None and self.count >= self.moment:
            raise Killed

    def around(self, operation):
        def operate(*paths, **kwargs):
            if not any(str(path).endswith(('.pth', 'last_checkpoint')) for path in paths):
                return operation(*paths, **kwargs)
            self.step()
            return operation(*paths, **kwargs)
        return operate

    def put(self, obj, filepath):
        self.step()
        with self.open(filepath, 'wb') as file:
            file.write(obj[:len(obj) // 2])
            file.flush()
            self.step()
            file.write(obj[len(obj) // 2:])

    def open_pointer(self, file, mode='r', *args, **kwargs):
        if str(file).endswith('last_checkpoint') and 'w' in mode:
            self.step()
            opened = self.open(file, mode, *args, **kwargs)
            self.step()
            return opened
        return self.open(file, mode, *args, **kwargs)


def train(work_dir, *options):
    for kind in (MMLogger, MessageHub, Visualizer):
        kind._instance_dict.clear()
    return train_tool.main([str(CONFIG), '--work-dir', str(work_dir), *options, *OPTIONS])


def content(work_dir):
    """The checkpoints of a folder: names, weights and what the last one knows of the best."""
    loaded = {path.name: torch.load(path) for path in Path(work_dir).glob('*.pth')}
    best = {name: state for name, state in loaded.items() if name.startswith('best')}
    info = loaded['epoch_3.pth']['message_hub']['runtime_info']
    return {name: state['state_dict'] for name, state in best.items()}, info['best_score'], Path(info['best_ckpt']).name


def test_a_run_killed_at_any_operation_resumes_to_the_best_checkpoint(tmp_path, monkeypatch):
    def enter(name):  # the runs have one config, of a work dir of one name
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        return Path('run')

    work_dir = enter('whole')
    with pytest.MonkeyPatch.context() as patch:
        killer = Killer(patch, None)
        assert train(work_dir) == 0
    expected = content(work_dir)
    assert list(expected[0]) == ['best_toy_mean_epoch_3.pth'] and expected[2] == 'best_toy_mean_epoch_3.pth'
    assert killer.count > 15
    for moment in range(1, killer.count + 1):
        work_dir = enter(str(moment))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            Killer(patch, moment)
            train(work_dir)
        for path in work_dir.glob('best*.pth'):
            torch.load(path)  # whole
        assert train(work_dir, '--resume') == 0
        states, *rest = content(work_dir)
        assert tuple(rest) == expected[1:] and states.keys() == expected[0].keys(), moment
        for name, state in states.items():
            assert all(torch.equal(state[key], value) for key, value in expected[0][name].items()), moment
        assert not list(work_dir.glob('.*.pth.*'))
