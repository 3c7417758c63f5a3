"""Checkpoints that survive a kill at any time."""
from __future__ import annotations

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.registry import HOOKS

_BACKEND = 'clipgs_plugin.whole'
_VALIDATED = 'validated_step'


class WholeFileBackend(LocalBackend):
    """Local files that appear under their names when they are complete."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, [obj])


register_backend(_BACKEND, WholeFileBackend, force=True)


class _RemoveLater:
    """File backend that postpones removals until :meth:`flush`."""

    def __init__(self, backend):
        self._backend = backend
        self._pending = []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._pending.append((self._backend.remove, path))

    def rmtree(self, path: str) -> None:
        self._pending.append((self._backend.rmtree, path))

    def flush(self) -> None:
        while self._pending:
            remove, path = self._pending.pop(0)
            remove(path)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """CheckpointHook for runs that may be killed at any time and still end with the best checkpoint.

    The hook of mmengine writes files in place, and removes the best checkpoint before it writes a better one. A run
    that is killed between a checkpoint and its validation never validates that model. With this hook a file is
    complete or absent, a better checkpoint is written before the other is removed, and a resumed run first repeats a
    validation that is missing in its checkpoint.

    The arguments are those of mmengine's ``CheckpointHook``.
    """

    def before_train(self, runner) -> None:
        super().before_train(runner)
        if type(self.file_backend) is LocalBackend and self.backend_args is None:
            self.backend_args = {'backend': _BACKEND}
            if is_main_process():  # temporary files of a killed run
                for pattern in ('.*.pth.tmp', f'.*.pth.{"?" * 32}'):
                    for path in Path(self.out_dir).glob(pattern):
                        path.unlink()
        if _validation_is_due(runner, self.by_epoch):
            runner.logger.info('The checkpoint was saved before its validation, which is run now')
            # With a last checkpoint the outcome is saved into it.
            self.last_ckpt = runner.message_hub.runtime_info.get('last_ckpt')
            runner.val_loop.run()

    def after_val_epoch(self, runner, metrics) -> None:
        runner.message_hub.update_info(_VALIDATED, _step(runner, self.by_epoch))
        super().after_val_epoch(runner, metrics)

    def _save_best_checkpoint(self, runner, metrics) -> None:
        backend = self.file_backend
        self.file_backend = _RemoveLater(backend)
        super()._save_best_checkpoint(runner, metrics)
        self.file_backend.flush()
        self.file_backend = backend

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if isinstance(self.file_backend, _RemoveLater):  # the better checkpoint has been written
            self.file_backend.flush()
        super()._save_checkpoint_with_step(runner, step, meta)


def _step(runner, by_epoch: bool) -> int:
    return runner.epoch if by_epoch else runner.iter


def _validation_is_due(runner, by_epoch: bool) -> bool:
    """Check if a resumed run is at a step with a validation that its checkpoint lacks."""
    step, loop = _step(runner, by_epoch), runner.train_loop
    last = loop.max_epochs if by_epoch else loop.max_iters
    return (runner.val_loop is not None and step > 0 and step >= loop.val_begin
            and (step % loop.val_interval == 0 or step == last)
            and runner.message_hub.runtime_info.get(_VALIDATED) != step)
