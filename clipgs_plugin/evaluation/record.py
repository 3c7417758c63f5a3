"""The file ``metrics.json`` of an evaluation: what was evaluated on what, and how it came out."""
from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from clipgs_plugin.evaluation.confusion import ConfusionMatrix
from clipgs_plugin.io.checked_json import check_types, read_json
from clipgs_plugin.io.files import write_whole

NAME = 'metrics.json'
FORMAT = 'clipgs_plugin metrics 1'
_NAME = (str, None)
_SCHEMA = {'format': str, 'config': str, 'checkpoint': _NAME, 'checkpoint_sha256': _NAME, 'dataset': dict,
           'num_objects': int, 'seed': (int, None), 'metrics': dict, 'classification': dict}
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

    def save(self, path: str | PathLike) -> None:
        """Write the record as JSON.

        Raises:
            FileNotFoundError: The folder of the file does not exist.
        """
        metrics = {name: value if value is not None and math.isfinite(value) else None
                   for name, value in self.metrics.items()}
        content = dict(format=FORMAT, config=self.config, checkpoint=self.checkpoint,
                       checkpoint_sha256=self.checkpoint_sha256, dataset=self.dataset, num_objects=self.num_objects,
                       seed=self.seed, metrics=metrics,
                       classification={name: each.to_json() for name, each in self.classification.items()})
        write_whole(Path(path), [json.dumps(content, indent=1, allow_nan=False).encode()])

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
        for part, schema in (('metrics', (float, None)), ('dataset', str), ('classification', _CONFUSION)):
            check_types(content[part], dict.fromkeys(content[part], schema), f'{path}: {part}')
        try:
            confusions = {name: ConfusionMatrix.from_json(each) for name, each in content['classification'].items()}
        except ValueError as error:
            raise ValueError(f'{path}: {error}; write it again with tools/test.py') from error
        del content['format'], content['classification']
        known = {name: content[name] for name in _SCHEMA if name in content}
        return cls(classification=confusions, **known)
