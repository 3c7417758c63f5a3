"""Hooks: checkpoints that load safely, randomness that survives a resume, a progress bar, a summary of the model."""
from __future__ import annotations

import atexit
import logging
import random
import sys
from collections import Counter, OrderedDict

import numpy as np
import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from clipgs_plugin.models.gs_encoder import parts_in
from clipgs_plugin.registry import HOOKS


def _to_builtin(value):
    """Convert numpy values, which ``torch.load(weights_only=True)`` refuses, to Python's."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict):
        return type(value)((key, _to_builtin(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return [_to_builtin(item) for item in value] if isinstance(value, list) else tuple(map(_to_builtin, value))
    return value


@HOOKS.register_module()
class SafeCheckpointHook(Hook):
    """Hook for checkpoints that ``torch.load(file)`` accepts: weights and builtin values only.

    mmengine 0.10.7 pickles its log history and numpy scalars too, and then cannot load its own checkpoints. This hook
    drops the history, which only smooths the log, and converts scalars to Python numbers.
    """

    priority = 'LOWEST'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint.get('message_hub')
        if hub is not None:
            info = _to_builtin(hub['runtime_info'])
            checkpoint['message_hub'] = {
                'log_scalars': OrderedDict(), 'runtime_info': info,
                'resumed_keys': OrderedDict((k, v) for k, v in hub['resumed_keys'].items() if k in info)}
        checkpoint['meta'] = _to_builtin(checkpoint['meta'])


@HOOKS.register_module()
class SeedHook(Hook):
    """Hook that seeds torch, numpy and random from (seed, rank, epoch or iteration) before each epoch and iteration.

    mmengine does not store generator states. With this hook a resumed run draws the same numbers as an uninterrupted
    one, for dropout for example.

    Args:
        seed: Seed; None takes that of the run (``randomness``).
    """

    priority = 'VERY_HIGH'

    def __init__(self, seed: int | None = None):
        self.seed = seed

    def before_train_epoch(self, runner) -> None:
        self._reseed(runner, 0, runner.epoch)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        self._reseed(runner, 1, runner.iter)

    def _reseed(self, runner, stream: int, step: int) -> None:
        seed = runner.seed if self.seed is None else self.seed
        sequence = np.random.SeedSequence([seed, get_rank(), stream, step])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        np.random.seed(sequence.generate_state(2)[1])
        random.seed(int(sequence.generate_state(3)[2]))


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Progress bar of the iterations, with loss and remaining time.

    Args:
        enabled: Switch for the main process; None shows the bar if standard error is a terminal.
    """

    priority = 'BELOW_NORMAL'

    def __init__(self, enabled: bool | None = None):
        self.enabled = enabled
        self._bar = None
        self._redirected: list[logging.StreamHandler] = []

    def before_train(self, runner) -> None:
        if not (sys.stderr.isatty() if self.enabled is None else self.enabled) or not is_main_process():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        self._bar = Progress(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                             TextColumn('loss {task.fields[loss]}  eta'), TimeRemainingColumn(),
                             console=Console(stderr=True), transient=True)
        self._bar.start()
        atexit.register(self._stop)  # a failing run calls no hook, and the bar hides the cursor
        self._task = self._bar.add_task('', total=runner.max_iters, completed=runner.iter, loss='')
        # Log lines go through the streams of the bar, which keep it below them.
        self._redirected = [h for h in runner.logger.handlers
                            if type(h) is logging.StreamHandler and h.stream is sys.__stdout__]
        for handler in self._redirected:
            handler.setStream(sys.stdout)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=runner.iter + 1, loss=f'{float((outputs or {})["loss"]):.4f}',
                             description=f'epoch {runner.epoch + 1}/{runner.max_epochs}')

    def after_train(self, runner) -> None:
        self._stop()

    def after_run(self, runner) -> None:
        self._stop()

    def _stop(self) -> None:
        atexit.unregister(self._stop)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        for handler in self._redirected:
            handler.setStream(sys.__stdout__)
        self._redirected = []


@HOOKS.register_module()
class ModelSummaryHook(Hook):
    """Hook that logs trainable parameters and the origin of the initial weights before training.

    The first line has the number of parameters and the checkpoint of a resumed run or a ``load_from``. With a
    :class:`GSEncoder` in the model, a table has a row for each part of the encoder and one for all other parameters:
    their number, their state, and their initial weights, fresh or from a ``PointCloudPretrained`` or ``Pretrained``
    checkpoint.
    """

    def before_train(self, runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parameters = dict(model.named_parameters())
        rows, origins = [], _origins(model)
        for part, names in _names_by_part(model).items():
            of_part = [parameters[name] for name in names]
            rows.append((part, f'{_count(of_part):,}', _trainable(of_part), _origin(names, origins)))
        everything = list(parameters.values())
        trainable = _count([p for p in everything if p.requires_grad])
        lines = [f'{type(model).__name__}: {trainable:,} of {_count(everything):,} parameters are trainable'
                 + _continued(runner)]
        if rows:
            rows.insert(0, ('part', 'parameters', 'state', 'initial weights'))
            name, number, state, _ = (max(map(len, column)) for column in zip(*rows))
            lines += [f'  {row[0]:<{name}}  {row[1]:>{number}}  {row[2]:<{state}}  {row[3]}' for row in rows]
        runner.logger.info('\n'.join(lines))


def _names_by_part(model: nn.Module) -> dict[str, list[str]]:
    """Group names of parameters by part of the encoder; parameters outside of it come last."""
    found, parts = {}, parts_in(model)
    for name, part in parts.items():
        found.setdefault(part, []).append(name)
    others = [name for name, _ in model.named_parameters() if name not in parts]
    return {**found, 'others': others} if found and others else found


def _origins(model: nn.Module) -> dict[str, str]:
    """Map tensors to the file of their initial weights; initialisation of an outer module comes later and wins."""
    origins = {}
    for prefix, module in reversed(list(model.named_modules())):
        prefix = prefix and f'{prefix}.'
        configs = getattr(module, 'init_cfg', None) or ()
        for cfg in [configs] if isinstance(configs, dict) else configs:
            kind = cfg['type'] if isinstance(cfg['type'], str) else cfg['type'].__name__
            if kind.rpartition('.')[-1] == 'Pretrained':
                origins.update((name, cfg['checkpoint']) for name, _ in module.named_parameters(prefix[:-1]))
        for report in getattr(module, 'load_reports', ()):
            origins.update((prefix + name, f'{report.path} ({report.family})') for name in report.loaded)
    return origins


def _origin(names: list[str], origins: dict[str, str]) -> str:
    counts = Counter(origins.get(name) for name in names)
    fresh = counts.pop(None, 0)
    if not counts:
        return 'fresh'
    if not fresh and len(counts) == 1:
        return f'checkpoint {next(iter(counts))}'
    shares = [f'{count} of {len(names)} tensors from {origin}' for origin, count in counts.items()]
    return ', '.join(shares + [f'{fresh} fresh'] * bool(fresh))


def _trainable(parameters: list[nn.Parameter]) -> str:
    trainable = _count([p for p in parameters if p.requires_grad])
    return 'frozen' if not trainable else 'trainable' if trainable == _count(parameters) else f'{trainable:,} trainable'


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _continued(runner) -> str:
    """Describe the checkpoint that was loaded after the initialisation, if any."""
    source = runner.cfg.get('load_from')
    if runner.iter > 0:
        return f'; resumed{f" from {source}" if source else ""} at epoch {runner.epoch}, iteration {runner.iter}'
    return f'; weights loaded from {source} after the initialisation' if source else ''
