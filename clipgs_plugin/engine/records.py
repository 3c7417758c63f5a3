"""Records of evaluations by a Runner."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmengine.config import Config

from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.io.files import sha256_of

if TYPE_CHECKING:
    from mmengine.runner import Runner


def record_of(cfg: Config, runner: Runner, metrics: dict[str, float], checkpoint: Path | None) -> EvaluationRecord:
    """Describe an evaluation that a runner has finished, in its main process.

    Args:
        cfg: Config of the experiment.
        runner: Runner whose ``test()`` has returned.
        metrics: Result of ``test()``.
        checkpoint: File of the weights, or None for a model that has none.
    """
    dataset = cfg.test_dataloader.dataset
    confusions = {metric.prefix: metric.confusion for metric in runner.test_evaluator.metrics
                  if isinstance(getattr(metric, 'confusion', None), ConfusionMatrix)}
    return EvaluationRecord(
        config=Path(cfg.filename).stem,
        metrics={name: float(value) for name, value in metrics.items()},
        num_objects=len(runner.test_dataloader.dataset),
        dataset={key: str(value) for key, value in dataset.items() if isinstance(value, str | int | float)},
        seed=cfg.get('randomness', {}).get('seed'),
        checkpoint=None if checkpoint is None else str(checkpoint),
        checkpoint_sha256=None if checkpoint is None else _sha256(checkpoint),
        classification=confusions)


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return sha256_of(file)
