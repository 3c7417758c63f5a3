"""Results by class for the report page, of one evaluation and of two side by side."""
from __future__ import annotations

from pathlib import Path

from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.visualization.report import Table

ERRORS = 20  # rows of the table of frequent errors


def confusion_of(record: EvaluationRecord | None) -> ConfusionMatrix | None:
    """Return the confusion matrix of a record's first metric that has one."""
    return next(iter(record.classification.values()), None) if record is not None else None


def describe_record(record: EvaluationRecord) -> str:
    """Describe in a sentence what was evaluated."""
    weights = '' if record.checkpoint is None else (
        f'{Path(record.checkpoint).name} (sha256 {str(record.checkpoint_sha256)[:12]}) of ')
    place = ', '.join(record.dataset[key] for key in ('root', 'split') if key in record.dataset)
    return (f'{weights}{record.config}, seed {record.seed}, was '
            f'{"validated" if record.part == "val" else "evaluated"} on {record.num_objects} objects'
            + (f' ({place}).' if place else '.'))


def class_tables(confusion: ConfusionMatrix) -> list[Table]:
    """Tabulate the accuracy of each class, and the most frequent errors."""
    objects, errors = confusion.objects, confusion.confusions(ERRORS)
    rows = [[name, str(objects[name]), _number(value)] for name, value in confusion.accuracies.items()]
    tables = [Table('Accuracy by class', 'Share of the objects of a class that are recognised, in percent.',
                    ('class', 'objects', 'accuracy (%)'), rows)]
    if errors:
        tables.append(Table('Most frequent errors', 'Objects of a class that are taken for another one.',
                            ('class', 'taken for', 'objects', 'share of the class (%)'),
                            [[true, taken, str(count), _number(100 * count / objects[true])]
                             for true, taken, count in errors]))
    return tables


def difference_tables(first: EvaluationRecord, second: EvaluationRecord, names: tuple[str, str]) -> list[Table]:
    """Compare two evaluations: metrics, and classes with the largest difference first.

    Args:
        first, second: Evaluations.
        names: Names of the two runs.

    Raises:
        ValueError: The evaluations have no metric in common.
    """
    shared = [name for name in first.metrics if name in second.metrics and '/top1/' not in name]
    if not shared:
        raise ValueError(f'the evaluations of {names[0]} and {names[1]} have no metric in common; evaluate both with '
                         'the same test_evaluator')
    note = f'{names[0]} minus {names[1]}.' + ('' if _same_objects(first, second) else
                                              ' The two were evaluated on different objects, so they do not compare.')
    columns = ('', *names, 'difference')
    tables = [Table('Differences', note, columns, [_row(name, first.metrics[name], second.metrics[name])
                                                   for name in shared])]
    if None not in (a := confusion_of(first), b := confusion_of(second)):
        pairs = [(name, a.accuracies[name], b.accuracies[name]) for name in a.classes if name in b.classes]
        pairs.sort(key=lambda pair: -abs(_difference(*pair[1:]) or 0))
        tables.append(Table('Differences by class', note + ' The largest difference is first.', columns,
                            [_row(*pair) for pair in pairs]))
    return tables


def _same_objects(first: EvaluationRecord, second: EvaluationRecord) -> bool:
    counts = [each.objects if each else None for each in (confusion_of(first), confusion_of(second))]
    data = [(record.num_objects, {key: record.dataset.get(key) for key in ('root', 'split')})
            for record in (first, second)]
    return counts[0] == counts[1] and data[0] == data[1]


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _row(name: str, a: float | None, b: float | None) -> list[str]:
    difference = _difference(a, b)
    return [name, _number(a), _number(b), '-' if difference is None else f'{difference:+.1f}']


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.1f}'
