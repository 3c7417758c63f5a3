"""Records of evaluations: tests, validations during training, cells of tables."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.evaluation.record import NAME
from clipgs_plugin.io.files import sha256_of
from clipgs_plugin.registry import HOOKS


def record_of(cfg: Config, evaluator: Evaluator, metrics: Mapping[str, float], num_objects: int,
              checkpoint: Path | None = None, part: str = 'test') -> EvaluationRecord:
    """Describe a finished evaluation, in the main process.

    Args:
        cfg: Config of the experiment.
        evaluator: Evaluator that has computed the metrics.
        metrics: Result of the evaluation.
        num_objects: Number of objects evaluated.
        checkpoint: File of the weights, or None for those of a training, or a model that has none.
        part: ``'test'`` or ``'val'``, the evaluated part of the config.
    """
    dataset = cfg[f'{part}_dataloader'].dataset
    confusions = {metric.prefix: metric.confusion for metric in evaluator.metrics
                  if isinstance(getattr(metric, 'confusion', None), ConfusionMatrix)}
    return EvaluationRecord(
        config=Path(cfg.filename or '').stem,
        metrics={name: float(value) for name, value in metrics.items()},
        num_objects=num_objects,
        dataset={key: str(value) for key, value in dataset.items() if isinstance(value, str | int | float)},
        seed=cfg.get('randomness', {}).get('seed'),
        checkpoint=None if checkpoint is None else str(checkpoint),
        checkpoint_sha256=None if checkpoint is None else _sha256(checkpoint),
        classification=confusions, part=part)


@HOOKS.register_module()
class ValidationRecordHook(Hook):
    """Hook that keeps the last validation in ``metrics.json`` of the work dir, unless a test has left its own there."""

    priority = 'LOW'

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        path = Path(runner.work_dir, NAME)
        if is_main_process() and metrics and _is_replaceable(path):
            record_of(runner.cfg, runner.val_evaluator, metrics, len(runner.val_dataloader.dataset),
                      part='val').save(path)


def _is_replaceable(path: Path) -> bool:
    """Tell if there is no file, or the record of a validation."""
    try:
        return EvaluationRecord.load(path).part == 'val'
    except FileNotFoundError:
        return True
    except ValueError:  # not of this package
        return False


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return sha256_of(file)
