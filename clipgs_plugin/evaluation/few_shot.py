"""Few-shot classification over tasks."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import pad

from clipgs_plugin.datasets.episodes import Episode, FewShotEpisodes
from clipgs_plugin.datasets.frozen_features import FrozenFeatures
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.evaluation.functional import topk_accuracy
from clipgs_plugin.models.heads import FewShotHead
from clipgs_plugin.registry import METRICS, MODELS
from clipgs_plugin.structures import GaussianCloud

PROTOCOLS = ('fixed', 'published')


@dataclass(frozen=True)
class FewShotScore:
    """Accuracies of a head over the trials of a task, in percent.

    Attributes:
        accuracies: Accuracy of each trial with the head's fixed settings and its last epoch.
        published: Accuracy of each trial with the settings that are best on the queries themselves, as the literature
            chooses them; empty unless requested.
        leak: Description of what is chosen for ``published``.
    """

    accuracies: tuple[float, ...]
    published: tuple[float, ...] = ()
    leak: str = ''

    @classmethod
    def of(cls, trials: Sequence[Trial], leak: str = '') -> FewShotScore:
        """Collect trials."""
        published = tuple(trial.published for trial in trials if trial.published is not None)
        return cls(tuple(trial.accuracy for trial in trials), published, leak)

    def to_dict(self) -> dict:
        """Return plain data for JSON."""
        found = dict(zip(('mean', 'std'), mean_and_std(self.accuracies)), accuracies=list(self.accuracies))
        if self.published:
            found['published'] = dict(zip(('mean', 'std'), mean_and_std(self.published)), leak=self.leak,
                                      accuracies=list(self.published))
        return found


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Compute the mean and the sample standard deviation, which is 0 for a single value."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(len(values) - 1, 1))


def setting_name(ways: int | None, shots: int) -> str:
    """Name a setting as the published folds are named, ``5way10shot``; ``all16shot`` is over all classes."""
    return f'{"all" if ways is None else f"{ways}way"}{shots}shot'


class Objects(Protocol):
    """Objects of tasks: :class:`FrozenFeatures`, or :class:`PreparedObjects` for heads that take objects."""

    def take(self, uids: Sequence[str]) -> Tensor | list[GaussianCloud]:
        """Return what a head sees of some objects; one that is not there is a ValueError."""


class Trial(NamedTuple):
    """Accuracy of a head in one task, and the best one over what the literature chooses, in percent."""

    accuracy: float
    published: float | None = None


def run_trial(
    head: FewShotHead,
    episode: Episode,
    support: Objects,
    query: Objects,
    class_embeddings: ClassEmbeddings | None = None,
    protocol: str = 'fixed',
) -> Trial:
    """Fit a head in one task and classify its queries; see :func:`few_shot_score`."""
    found = []
    for objects, groups in ((support, episode.support), (query, episode.query)):
        found.append(objects.take([uid for group in groups for uid in group]))
        found.append(torch.arange(len(groups)).repeat_interleave(torch.tensor([len(group) for group in groups])))
    features, labels, queries, expected = found
    text = None if class_embeddings is None else class_embeddings.select(episode.classes).embeddings

    def score(logits: Tensor) -> float:
        # Heads without class embeddings do not know the last classes if these have no support.
        logits = pad(logits, (0, len(episode.classes) - logits.shape[1]), value=float(logits.min()) - 1)
        return topk_accuracy(logits, expected, (1,))[1]
    with torch.no_grad():
        fixed = score(head.fit(features, labels, text)(queries))
    if protocol != 'published':
        return Trial(fixed)
    best = head.best_score(features, labels, text, queries, score) if head.leak else fixed
    return Trial(fixed, max(fixed, best))


def few_shot_score(
    head: FewShotHead,
    episodes: Iterable[Episode],
    support: FrozenFeatures,
    query: FrozenFeatures | None = None,
    class_embeddings: ClassEmbeddings | None = None,
    protocol: str = 'fixed',
) -> FewShotScore:
    """Fit a head in each task and classify its queries; ties count against the true class.

    Args:
        head: Head, fitted anew in each task.
        episodes: Tasks.
        support: Features to learn from.
        query: Features to classify; None takes those of ``support``.
        class_embeddings: Embeddings of at least the class names of the tasks, for heads that start from them.
        protocol: ``'fixed'``, or ``'published'`` to also report the best accuracy over what the literature chooses on
            the queries. That choice sees the test labels, so the number is optimistic.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f'protocol={protocol!r}: expected one of {PROTOCOLS}')
    if query is not None:
        check_disjoint(support, query)
    return FewShotScore.of([run_trial(head, episode, support, support if query is None else query, class_embeddings,
                                      protocol) for episode in episodes], head.leak)


def check_disjoint(support: FrozenFeatures, query: FrozenFeatures) -> None:
    """Check that no object is in both sets; folders may use one uid for two objects, so features are compared too.

    Raises:
        ValueError: An object is in both sets.
    """
    rows = {uid: i for i, uid in enumerate(support.uids)}
    shared = [(rows[uid], i) for i, uid in enumerate(query.uids) if uid in rows]
    if shared:
        first, second = (torch.tensor(column) for column in zip(*shared))
        same = (support.embeddings[first] == query.embeddings[second]).all(1)
        if same.any():
            raise ValueError(f'{int(same.sum())} objects, such as {support.uids[int(first[same][0])]!r}, are in '
                             'support and query; give two splits, or one set that both are drawn from')


@METRICS.register_module()
class FewShotAccuracy(BaseMetric):
    """Accuracy of few-shot heads on the embeddings of the evaluated objects, over random tasks.

    The queries of a task are evaluated objects. Its support comes from a file of features, or also from the evaluated
    objects, disjoint from the queries.

    Args:
        heads: Configs of heads by the name in the results.
        settings: Dicts with ``ways`` (None for all classes) and ``shots``.
        support: Path of a file of :class:`FrozenFeatures`; None draws the support from the evaluated objects.
        class_embeddings: Path of a file of :class:`ClassEmbeddings`, for heads that start from class names.
        queries: Number of queries a class; None takes all that are left.
        trials: Number of tasks of a setting.
        seed: Random seed of the tasks.
        scarce: Rule for classes with too few objects, see :class:`FewShotEpisodes`.
        protocol: See :func:`few_shot_score`.

    Reports ``few_shot/HEAD/5way10shot`` and ``..._std`` in percent; with the published protocol ``..._published`` too.
    """

    default_prefix = 'few_shot'

    def __init__(self, heads: Mapping[str, dict], settings: Sequence[Mapping], support: str | Path | None = None,
                 class_embeddings: str | Path | None = None, queries: int | None = 20, trials: int = 10, seed: int = 0,
                 scarce: str = 'refuse', protocol: str = 'fixed', collect_device: str = 'cpu',
                 prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.heads = {name: MODELS.build(dict(head)) for name, head in heads.items()}
        tuned = [name for name, head in self.heads.items() if head.takes != 'features']
        if tuned:
            raise ValueError(f'heads={tuned}: FewShotAccuracy has the embeddings of objects, and these heads tune an '
                             'encoder on the objects; run them with tools/few_shot.py')
        self.settings = [dict(setting) for setting in settings]
        self.support = None if support is None else FrozenFeatures.load(support)
        self.class_embeddings = None if class_embeddings is None else ClassEmbeddings.load(class_embeddings)
        self.options = dict(queries=queries, trials=trials, seed=seed, scarce=scarce)
        self.protocol = protocol

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            if sample.get('label') is None:
                raise ValueError(f'object {sample.get("uid")!r} has no label, which FewShotAccuracy needs; evaluate a '
                                 'dataset with classes, or remove this metric')
            if int(sample.get('label')) >= 0:
                self.results.append((sample.get('uid'), int(sample.get('label')),
                                     sample.get('embedding').detach().float().cpu()))

    def compute_metrics(self, results: list) -> dict[str, float]:
        uids, labels, embeddings = zip(*results)
        found = FrozenFeatures(torch.stack(embeddings), torch.tensor(labels), uids, self.dataset_meta['classes'])
        support, query = (found, None) if self.support is None else (self.support, found)
        metrics = {}
        for setting in self.settings:
            episodes = list(FewShotEpisodes(support, query, **setting, **self.options))
            for name, head in self.heads.items():
                score = few_shot_score(head, episodes, support, query, self.class_embeddings, self.protocol)
                key = f'{name}/{setting_name(**setting)}'
                metrics[key], metrics[f'{key}_std'] = mean_and_std(score.accuracies)
                if score.published:
                    metrics[f'{key}_published'] = mean_and_std(score.published)[0]
        return metrics
