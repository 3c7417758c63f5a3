"""Cross-modal retrieval in the full gallery."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor
from torch.nn.functional import normalize

from clipgs_plugin.evaluation.functional import recall_at_k, retrieval_ranks
from clipgs_plugin.registry import METRICS

# What an object keeps of its views (V, E) until the end: one vector, or every view in the precision of cached features.
_REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    'first': lambda views: views[0].float(),
    'mean': lambda views: normalize(views.float(), dim=-1).mean(0),
    'each': lambda views: views.half(),
}


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """Recall and median rank between objects and their captions or views, in both directions, over the whole dataset.

    The gallery is the full evaluation set. Objects with equal ``caption_id`` share a caption: each of them is a right
    answer to it, and each copy of it is a right answer to them. Ties are ranked pessimistically.

    Args:
        topk: Values of k of ``R@k``.
        views: Views of an object that take part: ``'first'``, its view 0; ``'mean'``, the mean of its unit view
            features; ``'each'``, one retrieval a view slot, among the views of that slot, with pooled ranks.

    An object keeps one view vector until the end, or with ``'each'`` all its views in float16, as cached features are.

    Reports ``retrieval/text_to_3d_R@1`` in percent and ``retrieval/text_to_3d_median_rank``, and the same for
    ``3d_to_text`` (samples with ``text``), ``image_to_3d`` and ``3d_to_image`` (samples with ``views``).
    """

    default_prefix = 'retrieval'

    def __init__(self, topk: Sequence[int] = (1, 5, 10), views: str = 'first', collect_device: str = 'cpu',
                 prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if views not in _REDUCED:
            raise ValueError(f'views={views!r}, expected one of {", ".join(map(repr, _REDUCED))}')
        self.topk = tuple(topk)
        self.views = views

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            reduced = dict(embedding=Tensor.float, text=Tensor.float, views=_REDUCED[self.views])
            # Copies, because a row of a batch keeps the whole batch in memory.
            kept = {key: reduce(sample.get(key).detach()).to('cpu', copy=True) for key, reduce in reduced.items()
                    if sample.get(key) is not None}
            if len(kept) < 2:
                raise ValueError(f'object {sample.get("uid")!r} has neither text nor views features, which '
                                 'RetrievalRecall needs; cache them with tools/cache_features.py')
            if 'text' in kept:
                if sample.get('caption_id') is None:
                    raise ValueError(f'object {sample.get("uid")!r} has text but no caption_id, by which '
                                     'RetrievalRecall recognises equal captions')
                kept['caption_id'] = int(sample.get('caption_id'))
            self.results.append(kept)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        objects = torch.stack([result['embedding'] for result in results])
        metrics = {}
        if all('text' in result for result in results):
            text = torch.stack([result['text'] for result in results])
            ids = torch.tensor([result['caption_id'] for result in results])
            metrics.update(self._both_ways('text', objects, [text], ids))
        if all('views' in result for result in results):
            metrics.update(self._both_ways('image', objects, self._galleries(results), torch.arange(len(results))))
        if not metrics:
            raise ValueError('some objects have text features and others have views, but all need the same; cache them '
                             'with tools/cache_features.py')
        return metrics

    def _galleries(self, results: list[dict]) -> Iterator[Tensor]:
        """Iterate over the galleries of views, each (N, E), one at a time because of their size."""
        if self.views != 'each':
            yield torch.stack([result['views'] for result in results])
            return
        for slot in range(len(results[0]['views'])):
            yield torch.stack([result['views'][slot] for result in results])

    def _both_ways(self, name: str, objects: Tensor, others: Iterable[Tensor], ids: Tensor) -> dict[str, float]:
        found = [(retrieval_ranks(other, objects, ids, ids), retrieval_ranks(objects, other, ids, ids))
                 for other in others]
        metrics = {}
        for way, rank in zip((f'{name}_to_3d', f'3d_to_{name}'), map(torch.cat, zip(*found))):
            metrics.update({f'{way}_R@{k}': recall_at_k(rank, k) for k in self.topk})
            metrics[f'{way}_median_rank'] = float(np.median(rank))
        return metrics
