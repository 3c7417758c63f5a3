"""Hook that writes the confusion matrix of an evaluation."""
from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from clipgs_plugin.evaluation import ClassificationAccuracy, ConfusionMatrix
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.registry import HOOKS


@HOOKS.register_module()
class ConfusionHook(Hook):
    """Hook that writes ``confusion_{val,test}.csv`` and ``.json`` into the work dir after each evaluation.

    Rows of the ``.csv`` are true classes, columns predicted ones. The ``.json`` has recall and precision of each class,
    and the same counts. The evaluator needs a :class:`ClassificationAccuracy`.
    """

    priority = 'LOW'

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        self._write(runner.val_evaluator, Path(runner.work_dir), 'val')

    def after_test_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        self._write(runner.test_evaluator, Path(runner.work_dir), 'test')

    def _write(self, evaluator: Evaluator, work_dir: Path, split: str) -> None:
        for metric in evaluator.metrics if is_main_process() else ():
            if isinstance(metric, ClassificationAccuracy) and metric.confusion is not None:
                write_confusion(metric.confusion, work_dir / f'confusion_{split}')


def write_confusion(confusion: ConfusionMatrix, stem: Path) -> None:
    """Write ``STEM.csv`` and ``STEM.json``."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator='\n')
    rows.writerow(['', *confusion.classes])
    rows.writerows([name, *counts] for name, counts in zip(confusion.classes, confusion.counts.tolist()))
    write_whole(stem.with_suffix('.csv'), [table.getvalue().encode()])
    content = dict(classes=confusion.report(), counts=confusion.counts.tolist())
    write_whole(stem.with_suffix('.json'), [json.dumps(content, indent=1).encode()])
