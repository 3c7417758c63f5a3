"""The file ``metrics.json`` of an evaluation: what was evaluated on what, and how it came out."""
from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

from clipgs_plugin.evaluation.confusion import ConfusionMatrix
from clipgs_plugin.io.checked_json import check_types, read_json
from clipgs_plugin.io.files import write_whole

NAME = 'metrics.json'
FORMAT = 'clipgs_plugin metrics 1'
_NAME = (str, None)
_SCHEMA = {'format': str, 'config': str, 'checkpoint': _NAME, 'checkpoint_sha256': _NAME, 'dataset': dict,
           'num_objects': int, 'seed': (int, None), 'part?': str, 'metrics': dict, 'classification': dict}
PARTS = ('test', 'val')
_CONFUSION = {'classes': [str], 'counts': [[int, int, int]]}


@dataclass(frozen=True)
class EvaluationRecord:
    """Metrics of one checkpoint on one dataset, with what identifies both."""

    config: str                               # name of the config
    metrics: dict[str, float | None]          # None for values that are not finite, which JSON lacks
    num_objects: int
    dataset: dict[str, str] = field(default_factory=dict)  # type, root, split and so on
    seed: int | None = None
    checkpoint: str | None = None             # path; None for a model without weights of its own
    checkpoint_sha256: str | None = None
    classification: dict[str, ConfusionMatrix] = field(default_factory=dict)  # by prefix of the metric
    part: str = 'test'                        # 'val' for the last validation of a training

    def save(self, path: str | PathLike) -> None:
        """Write the record as JSON.

        Raises:
            FileNotFoundError: The folder of the file does not exist.
        """
        metrics = {name: value if value is not None and math.isfinite(value) else None
                   for name, value in self.metrics.items()}
        content = dict(format=FORMAT, config=self.config, checkpoint=self.checkpoint,
                       checkpoint_sha256=self.checkpoint_sha256, dataset=self.dataset, num_objects=self.num_objects,
                       seed=self.seed, part=self.part, metrics=metrics,
                       classification={name: each.to_json() for name, each in self.classification.items()})
        lines = (f'{json.dumps(name)}: {json.dumps(value, allow_nan=False)}' for name, value in content.items())
        write_whole(Path(path), ['{{\n {}\n}}\n'.format(',\n '.join(lines)).encode()])

    @classmethod
    def load(cls, path: str | PathLike) -> EvaluationRecord:
        """Read a file of :meth:`save`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged or of another kind.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist; tools/test.py writes it')
        content = read_json(path, schema=_SCHEMA)
        if content['format'] != FORMAT:
            raise ValueError(f'{path} is of format {content["format"]!r}, expected {FORMAT!r}; write it with '
                             'tools/test.py')
        for key, schema in (('metrics', (float, None)), ('dataset', str), ('classification', _CONFUSION)):
            check_types(content[key], dict.fromkeys(content[key], schema), f'{path}: {key}')
        if content.get('part', 'test') not in PARTS:
            raise ValueError(f'{path}: part is {content["part"][:40]!r}, expected one of {", ".join(PARTS)}; write it '
                             'again with tools/test.py')
        try:
            confusions = {name: ConfusionMatrix.from_json(each) for name, each in content['classification'].items()}
        except ValueError as error:
            raise ValueError(f'{path}: {error}; write it again with tools/test.py') from error
        del content['format'], content['classification']
        known = {name: content[name] for name in (key.removesuffix('?') for key in _SCHEMA) if name in content}
        return cls(classification=confusions, **known)


def joined(records: Mapping[str, EvaluationRecord]) -> EvaluationRecord:
    """Join the records of one model on several test sets; the name of each stands before its metrics.

    Objects and data are those of the first.
    """
    def named(name: str, key: str) -> str:
        return f'{name}/{key}' if name else key

    return replace(
        next(iter(records.values())),
        metrics={named(name, key): value for name, each in records.items() for key, value in each.metrics.items()},
        classification={named(name, key): matrix for name, each in records.items()
                        for key, matrix in each.classification.items()})
