"""Folders of results for the report: work dirs of training and evaluation, few-shot results, tables of experiments."""
from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from clipgs_plugin.evaluation import ConfusionMatrix, EvaluationRecord
from clipgs_plugin.evaluation.record import NAME
from clipgs_plugin.io.checked_json import check_types, read_json

TABLE, FEW_SHOT = 'table.json', 'few_shot.json'
CURVES = ('loss', 'loss_text', 'loss_image', 'zero_shot/top1', 'retrieval/text_to_3d_R@1', 'logit_scale')
_TABLE = {'table?': str, 'rows': [{'title': str, 'seeds': [int], 'cells?': [str], 'metrics': dict}]}
_SEED = re.compile(r"keyword\(arg='seed', value=Constant\(value=\d+\)\)")  # datasets have it too
_PLACES = ('work_dir', 'load_from', 'resume', 'launcher', 'experiment_name')  # of a config, that change no result


@dataclass(frozen=True)
class Run:
    """Results of a folder, or of several that differ by seed only."""

    name: str
    paths: tuple[Path, ...]
    metrics: Mapping[str, Sequence[float]]                 # values over seeds or trials
    source: str = ''                                       # description of what was run
    seeds: tuple[int | None, ...] = ()
    experiment: object = None                              # equal for runs that differ by seed only
    record: EvaluationRecord | None = None                 # pooled over seeds
    curves: Mapping[str, Sequence[tuple[list[float], list[float]]]] = field(default_factory=dict)

    @property
    def evaluable(self) -> Path | None:
        """Folder of a best checkpoint, that of the first seed."""
        return next((path for path in self.paths if any(path.glob('best_*.pth')) and any(path.glob('*.py'))), None)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read folders of results; a table of experiments has a run for each of its rows.

    Raises:
        FileNotFoundError: A folder does not exist or holds no results.
        ValueError: A file of results is damaged.
    """
    runs = [run for path in paths for run in _read(path)]
    names = [run.name for run in runs]
    return [run if names.count(run.name) == 1 else replace(run, name=_longer(run, runs[:i]))
            for i, run in enumerate(runs)]


def _longer(run: Run, before: Sequence[Run]) -> str:
    """Name a run by its folder too, and by its number where that is not enough."""
    folder = run.paths[0].resolve()
    name = f'{folder.parent.name}/{run.name}' if folder.name == run.name else f'{folder.name}: {run.name}'
    number = sum(each.paths == run.paths and each.name == run.name for each in before)
    return f'{name} ({number + 1})' if number else name


def _read(path: Path) -> list[Run]:
    if not path.is_dir():
        raise FileNotFoundError(f'{path} is no folder; name a work dir of tools/train.py or tools/test.py')
    if (path / TABLE).is_file():
        return _read_table(path)
    if (path / FEW_SHOT).is_file():
        return [_read_few_shot(path)]
    record = EvaluationRecord.load(path / NAME) if (path / NAME).is_file() else None
    curves = read_curves(path)
    config = max(path.glob('*.py'), key=lambda file: file.stat().st_mtime, default=None)
    if record is None and not curves and not any(path.glob('best_*.pth')):
        raise FileNotFoundError(f'{path} has no results: neither {NAME}, {TABLE}, {FEW_SHOT}, nor training curves or '
                                'a best checkpoint; name the work dir of tools/train.py or tools/test.py')
    experiment, seed = _experiment(config, record)
    if record is None:
        metrics = {name: [values[-1]] for name, (_, values) in read_curves(path, ()).items()}
    else:
        metrics = {name: [] if value is None else [value]
                   for name, value in record.metrics.items() if '/top1/' not in name}
    if record is None or record.part == 'val':
        metrics = {f'{name} (validation)': values for name, values in metrics.items()}
    source = config.stem if config is not None else '' if record is None else record.config
    return [Run(path.resolve().name, (path,), metrics, source, (seed,), experiment, record,
                {name: [curve] for name, curve in curves.items()})]


def _read_table(path: Path) -> list[Run]:
    content, runs = read_json(path / TABLE, schema=_TABLE), []
    for row in content['rows']:
        check_types(row['metrics'], {name: [float] for name in row['metrics']}, f'{path / TABLE}: metrics')
        runs.append(Run(row['title'], (path,), row['metrics'], content.get('table', ''), tuple(row['seeds']),
                        record=_record_of_cells(path, row.get('cells', []))))
    if not runs:
        raise FileNotFoundError(f'{path / TABLE} has no rows yet; run its cells with tools/run_table.py')
    return runs


def _record_of_cells(path: Path, names: Sequence[str]) -> EvaluationRecord | None:
    """Return the pooled record of the cells of a row, or None if one has none, as those of earlier versions."""
    files = [path / 'cells' / Path(name).name / NAME for name in names]
    return pooled([EvaluationRecord.load(file) for file in files]) if files and all(
        file.is_file() for file in files) else None


def _read_few_shot(path: Path) -> Run:
    content = read_json(path / FEW_SHOT, schema={'config': str, 'scores': dict})
    metrics = {}
    for head, row in content['scores'].items():
        check_types(row, dict, f'{path / FEW_SHOT}: {head}')
        check_types(list(row.values()), [{'accuracies': [float], 'published?': {'accuracies': [float]}}],
                    f'{path / FEW_SHOT}: {head}')
        metrics.update({f'few_shot/{head}, {setting}': score['accuracies'] for setting, score in row.items()})
        metrics.update({f'few_shot/{head}, published protocol, {setting}': score['published']['accuracies']
                        for setting, score in row.items() if 'published' in score})
    return Run(path.resolve().name, (path,), metrics, content['config'])


def _experiment(config: Path | None, record: EvaluationRecord | None) -> tuple[object, int | None]:
    """Return what a run shares with those of other seeds, and its seed; a config is parsed and never executed."""
    data = None if record is None else tuple(sorted(pair for pair in record.dataset.items() if pair[0] != 'seed'))
    seed = None if record is None else record.seed
    if config is None:
        return (None if record is None else (record.config, data)), seed
    try:
        settings = {node.targets[0].id: node.value for node in ast.parse(config.read_text(encoding='utf-8')).body
                    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'{config}: damaged or no config ({str(error)[:150]}); name another work dir') from None
    randomness = settings.pop('randomness', None)
    for keyword in randomness.keywords if isinstance(randomness, ast.Call) else ():
        if keyword.arg == 'seed' and isinstance(keyword.value, ast.Constant):
            seed = keyword.value.value
    return (tuple((name, _SEED.sub('', ast.dump(value))) for name, value in sorted(settings.items())
                  if name not in _PLACES), data), seed


def group_seeds(runs: Sequence[Run]) -> list[Run]:
    """Join the runs that differ by seed only, in the order of the first of each."""
    groups: list[list[Run]] = []
    for run in runs:
        group = next((group for group in groups if run.experiment is not None and None not in run.seeds
                      and group[0].experiment == run.experiment and (group[0].record is None) == (run.record is None)
                      and not any(set(run.seeds) & set(each.seeds) for each in group)), None)
        groups.append([run]) if group is None else group.append(run)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(group: Sequence[Run]) -> Run:
    seeds = tuple(seed for run in group for seed in run.seeds)
    stem = re.sub(r'[\W_]*(seed|s)?[\W_\d]*$', '', _common_start([run.name for run in group]))
    return replace(
        group[0], name=f'{stem or group[0].source} (seeds {", ".join(map(str, seeds))})', seeds=seeds,
        paths=tuple(path for run in group for path in run.paths),
        metrics={name: [value for run in group for value in run.metrics.get(name, ())]
                 for name in dict.fromkeys(name for run in group for name in run.metrics)},
        curves={name: [curve for run in group for curve in run.curves.get(name, ())]
                for name in dict.fromkeys(name for run in group for name in run.curves)},
        record=None if group[0].record is None else pooled([run.record for run in group]))


def _common_start(names: Sequence[str]) -> str:
    return ''.join(letters[0] for letters in itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names)))


def pooled(records: Sequence[EvaluationRecord]) -> EvaluationRecord:
    """Average the metrics of evaluations of one test set, and add their confusion matrices."""
    first = records[0]
    metrics = {name: None if any(each.metrics.get(name) is None for each in records) else
               sum(each.metrics[name] for each in records) / len(records) for name in first.metrics}
    matrices = {name: ConfusionMatrix(found.classes, torch.stack(
        [each.classification[name].counts for each in records]).sum(0)) for name, found in first.classification.items()
        if all(name in each.classification and each.classification[name].classes == found.classes for each in records)}
    return replace(first, metrics=metrics, classification=matrices)


def read_curves(run: Path, names: Sequence[str] = CURVES) -> dict[str, tuple[list[float], list[float]]]:
    """Read losses, learning rate and validation metrics of a run: steps and values by name.

    A resumed part replaces the steps that it repeats.

    Args:
        run: Work dir.
        names: Quantities to return; an empty list returns all validation metrics.

    Raises:
        ValueError: A file is damaged before its last line, which a killed run leaves unfinished.
    """
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for path in sorted(run.glob('*/vis_data/scalars.json')):
        for entry in _entries(path):
            for name, value in entry.items():
                wanted = name in names if names else name.startswith(('zero_shot/', 'retrieval/', 'accuracy/'))
                if wanted and isinstance(value, (int, float)):
                    steps, values = curves.setdefault(name, ([], []))
                    while steps and steps[-1] >= entry['step']:
                        steps.pop(), values.pop()
                    steps.append(entry['step'])
                    values.append(value)
    return {name: curves[name] for name in (names or curves) if name in curves}


def _entries(path: Path) -> list[dict]:
    lines, entries = path.read_text(encoding='utf-8', errors='replace').splitlines(), []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict) and isinstance(entry.get('step'), (int, float)):
            entries.append(entry)
        elif number < len(lines):
            raise ValueError(f'{path}: line {number} is damaged, expected one JSON object a line with its step; delete '
                             'the line')
    return entries


def dumped_config(run: Path) -> Path:
    """Find the dumped config of a run."""
    return _one(run, '*.py', 'dumped config')


def best_checkpoint(run: Path) -> Path:
    """Find the checkpoint of a run that was best on validation."""
    return _one(run, 'best_*.pth', 'best checkpoint')


def _one(run: Path, pattern: str, what: str) -> Path:
    """Find the newest file of a pattern in a run."""
    files = sorted(run.glob(pattern), key=lambda path: path.stat().st_mtime)
    if not files:
        raise FileNotFoundError(f'{run} has no {what} ({pattern}); name the work dir of tools/train.py')
    return files[-1]
