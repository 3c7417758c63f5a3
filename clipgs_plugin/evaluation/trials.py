"""Trials of heads that tune an encoder, kept as they end, since each takes minutes."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from clipgs_plugin.datasets.episodes import Episode
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.evaluation.few_shot import FewShotScore, Objects, Trial, run_trial
from clipgs_plugin.io.json_lines import JsonLines
from clipgs_plugin.models.heads import FewShotHead
from clipgs_plugin.version import __version__

_SCHEMA = {'key': str, 'accuracy': float, 'published': (float, None)}


class KeptTrials:
    """Context with a file of trials, one a line, in which a run after a killed one finds those that ended.

    Args:
        path: The file, which is created if there is none.

    Attributes:
        done: Trials by their key.

    Raises:
        ValueError: A line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.done: dict[str, Trial] = {}
        self._path, self._lines = path, JsonLines(path)

    def __enter__(self) -> KeptTrials:
        self._lines.__enter__()
        for each in self._lines.entries(_SCHEMA):
            self.done[each['key']] = trial = Trial(each['accuracy'], each['published'])
            if not all(0 <= value <= 100 for value in trial if value is not None):
                raise ValueError(f'{self._path}: {trial} is no accuracy in percent; the file is damaged, delete it')
        return self

    def __exit__(self, *exc_info) -> None:
        self._lines.__exit__(*exc_info)

    def score(self, head: FewShotHead, mark: str, episodes: Iterable[Episode], support: Objects, query: Objects,
              class_embeddings: ClassEmbeddings | None = None, protocol: str = 'fixed') -> FewShotScore:
        """Run the trials that the file does not have; see :func:`few_shot_score`.

        Args:
            head: Head.
            mark: Text of all that the head and the objects are made of. Trials of another one are run again.
            episodes: Tasks.
            support: Objects to learn from.
            query: Objects to classify.
            class_embeddings: Embeddings of the class names, for heads that start from them.
            protocol: ``'fixed'`` or ``'published'``.
        """
        text = class_embeddings if head.needs_text else None
        names = '' if text is None else hashlib.sha256(text.embeddings.cpu().numpy().tobytes()).hexdigest()
        trials = []
        for episode in episodes:
            content = json.dumps([__version__, mark, names, protocol, asdict(episode)], sort_keys=True)
            key = hashlib.sha256(content.encode()).hexdigest()
            if key not in self.done:
                self.done[key] = run_trial(head, episode, support, query, class_embeddings, protocol)
                self._lines.add(json.dumps(dict(key=key, **self.done[key]._asdict())).encode() + b'\n')
            trials.append(self.done[key])
        return FewShotScore.of(trials, head.leak)
