"""Cross-modal retrieval in the full gallery."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from clipgs_plugin.evaluation.functional import recall_at_k, retrieval_ranks
from clipgs_plugin.registry import METRICS

_KEPT = ('embedding', 'text', 'views')


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """Recall and median rank between objects and their captions or views, in both directions, over the whole dataset.

    The gallery is the full evaluation set. Objects with equal ``caption_id`` share a caption: each of them is a right
    answer to it, and each copy of it is a right answer to them. Ties are ranked pessimistically.

    Args:
        topk: Values of k of ``R@k``.
        views: Views of an object that take part: ``'first'``, its view 0; ``'mean'``, the mean of its unit view
            features; ``'each'``, one retrieval a view slot, among the views of that slot, with pooled ranks.

    Reports ``retrieval/text_to_3d_R@1`` in percent and ``retrieval/text_to_3d_median_rank``, and the same for
    ``3d_to_text`` (samples with ``text``), ``image_to_3d`` and ``3d_to_image`` (samples with ``views``).
    """

    default_prefix = 'retrieval'

    def __init__(self, topk: Sequence[int] = (1, 5, 10), views: str = 'first', collect_device: str = 'cpu',
                 prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if views not in ('first', 'mean', 'each'):
            raise ValueError(f"views={views!r}, expected 'first', 'mean' or 'each'")
        self.topk = tuple(topk)
        self.views = views

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            kept = {key: sample.get(key).detach().float().cpu() for key in _KEPT if sample.get(key) is not None}
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
            views = torch.stack([result['views'] for result in results])
            metrics.update(self._both_ways('image', objects, self._galleries(views), torch.arange(len(results))))
        if not metrics:
            raise ValueError('some objects have text features and others have views, but all need the same; cache them '
                             'with tools/cache_features.py')
        return metrics

    def _galleries(self, views: Tensor) -> list[Tensor]:
        """Select galleries of views, each (N, E), from (N, V, E)."""
        if self.views == 'each':
            return list(views.unbind(1))
        return [views[:, 0] if self.views == 'first' else torch.nn.functional.normalize(views, dim=-1).mean(1)]

    def _both_ways(self, name: str, objects: Tensor, others: list[Tensor], ids: Tensor) -> dict[str, float]:
        metrics = {}
        for way, rank in ((f'{name}_to_3d', [retrieval_ranks(other, objects, ids, ids) for other in others]),
                          (f'3d_to_{name}', [retrieval_ranks(objects, other, ids, ids) for other in others])):
            rank = torch.cat(rank)
            metrics.update({f'{way}_R@{k}': recall_at_k(rank, k) for k in self.topk})
            metrics[f'{way}_median_rank'] = float(np.median(rank))
        return metrics
