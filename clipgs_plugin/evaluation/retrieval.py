"""Cross-modal retrieval in the full gallery."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipgs_plugin.evaluation.functional import recall_at_k
from clipgs_plugin.evaluation.one_tower import build_tower
from clipgs_plugin.evaluation.outcomes import Outcomes
from clipgs_plugin.evaluation.photos import embed_photos, find_photos
from clipgs_plugin.evaluation.ranking import Ranking, rank_gallery
from clipgs_plugin.registry import METRICS

Gallery = tuple[Tensor, Tensor]  # embeddings (M, E), and the id of the object or caption of each (M,)

# What an object keeps of its views (V, E) until the end: one vector, or every view in the precision of cached features.
_REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    'first': lambda views: views[:1].float(),
    'mean': lambda views: normalize(views.float(), dim=-1).mean(0, keepdim=True),
    'each': lambda views: views.half(),
    'all': lambda views: views.half(),
}


@METRICS.register_module()
class RetrievalRecall(BaseMetric):
    """Recall, median rank and mAP between objects and their captions, views or photographs, in both directions.

    The gallery is the full evaluation set. Objects with equal ``caption_id`` share a caption: each of them is a right
    answer to it, and each copy of it is a right answer to them. Ties are ranked pessimistically.

    Args:
        topk: Values of k of ``R@k``.
        views: Views of an object that take part: ``'first'``, its view 0; ``'mean'``, the mean of its unit view
            features; ``'each'``, one retrieval a view slot, among the views of that slot, with pooled results;
            ``'all'``, one gallery of all views, each view of an object a right answer to it.
        photos: Folder of photographs of the objects, ``UID.jpg`` or ``UID/NAME.jpg``; objects without one are in the
            gallery all the same.
        teacher: Teacher of the photographs, or its config, of which the image tower is built.
        device: Device of a teacher that is given as a config.

    An object keeps one view vector until the end, or with ``'each'`` and ``'all'`` its views in float16, as cached
    features are. Objects may differ in their number of views.

    Reports ``retrieval/text_to_3d_R@1`` and ``retrieval/text_to_3d_mAP`` in percent and
    ``retrieval/text_to_3d_median_rank``, and the same for ``3d_to_text`` (samples with ``text``), ``image_to_3d`` and
    ``3d_to_image`` (samples with ``views``), ``photo_to_3d`` and ``3d_to_photo`` (with ``photos``).
    """

    default_prefix = 'retrieval'

    def __init__(self, topk: Sequence[int] = (1, 5, 10), views: str = 'first', photos: str | Path | None = None,
                 teacher: dict | nn.Module | None = None, device: str = 'cpu', collect_device: str = 'cpu',
                 prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if views not in _REDUCED:
            raise ValueError(f'views={views!r}, expected one of {", ".join(map(repr, _REDUCED))}')
        if (photos is None) != (teacher is None):
            raise ValueError('photographs need the teacher that embeds them, and nothing else does: set both of '
                             'photos=FOLDER and teacher=dict(type=\'OpenCLIPTeacher\', ...), or none')
        self.topk = tuple(topk)
        self.views = views
        self.photos = photos
        self.teacher = teacher
        self.device = device
        self.outcomes: dict[str, Outcomes] = {}  # of the last evaluation, in the main process
        self._uids: tuple[str, ...] = ()
        self._photos: tuple[Tensor, list[str]] | None = None  # embeddings (n, E), and the uid of each

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            reduced = dict(embedding=Tensor.float, text=Tensor.float, views=_REDUCED[self.views])
            # Copies, because a row of a batch keeps the whole batch in memory.
            kept = {key: reduce(sample.get(key).detach()).to('cpu', copy=True) for key, reduce in reduced.items()
                    if sample.get(key) is not None}
            if len(kept) < 2 and self.photos is None:
                raise ValueError(f'object {sample.get("uid")!r} has neither text nor views features, which '
                                 'RetrievalRecall needs; cache them with tools/cache_features.py')
            if 'text' in kept:
                if sample.get('caption_id') is None:
                    raise ValueError(f'object {sample.get("uid")!r} has text but no caption_id, by which '
                                     'RetrievalRecall recognises equal captions')
                kept['caption_id'] = int(sample.get('caption_id'))
            self.results.append({**kept, 'uid': sample.get('uid')})

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        objects, own = torch.stack([result['embedding'] for result in results]), torch.arange(len(results))
        metrics, self.outcomes, self._uids = {}, {}, tuple(result['uid'] for result in results)
        if all('text' in result for result in results):
            captions = torch.tensor([result['caption_id'] for result in results])
            text = torch.stack([result['text'] for result in results])
            metrics.update(self._both_ways('text', (objects, captions), [(text, captions)]))
        if all('views' in result for result in results):
            metrics.update(self._both_ways('image', (objects, own), self._view_galleries(results)))
        if self.photos is not None:
            metrics.update(self._both_ways('photo', (objects, own), [self._photo_gallery(results)]))
        if not metrics:
            raise ValueError('some objects have text features and others have views, but all need the same; cache them '
                             'with tools/cache_features.py')
        return metrics

    def _view_galleries(self, results: list[dict]) -> Iterator[Gallery]:
        """Iterate over the galleries of views, one at a time because of their size."""
        counts = torch.tensor([len(result['views']) for result in results])
        if self.views == 'all':
            owners = torch.arange(len(results)).repeat_interleave(counts)
            yield torch.cat([result['views'] for result in results]), owners
            return
        for slot in range(int(counts.max())):
            having = (counts > slot).nonzero()[:, 0]
            yield torch.stack([results[i]['views'][slot] for i in having]), having

    def _photo_gallery(self, results: list[dict]) -> Gallery:
        """Embed the photographs of the objects, once a run."""
        number = {result['uid']: i for i, result in enumerate(results)}
        if self._photos is None:
            found = find_photos(self.photos, number)
            teacher, self.teacher = self.teacher, None
            self._photos = (embed_photos(build_tower(teacher, 'image', self.device), [path for path, _ in found]),
                            [uid for _, uid in found])
            print_log(f'RetrievalRecall: {len(found)} photographs of {len(set(self._photos[1]))} of {len(results)} '
                      'objects', logger='current', level=logging.INFO)
        embeddings, uids = self._photos
        return embeddings, torch.tensor([number[uid] for uid in uids])

    def _both_ways(self, name: str, objects: Gallery, others: Iterable[Gallery]) -> dict[str, float]:
        """Retrieve objects by others and others by those objects that have one, with pooled results."""
        found, one_each = [], True
        for other in others:
            one_each &= not found and torch.equal(objects[1], other[1])  # one query an object, in its order
            known = torch.isin(objects[1], other[1])
            found.append((rank_gallery(other[0], objects[0], other[1], objects[1]),
                          rank_gallery(objects[0][known], other[0], objects[1][known], other[1])))
        metrics = {}
        for way, parts in zip((f'{name}_to_3d', f'3d_to_{name}'), zip(*found)):
            metrics.update({f'{way}_{figure}': value for figure, value in self._figures(parts).items()})
            if one_each:
                self.outcomes[f'{way}_R@1'] = Outcomes(self._uids, parts[0].ranks <= 1)
        return metrics

    def _figures(self, parts: Sequence[Ranking]) -> dict[str, float]:
        ranks = torch.cat([part.ranks for part in parts])
        precision = torch.cat([part.average_precisions for part in parts])
        return {**{f'R@{k}': recall_at_k(ranks, k) for k in self.topk}, 'mAP': 100 * float(precision.mean()),
                'median_rank': float(np.median(ranks))}
