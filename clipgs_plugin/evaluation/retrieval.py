"""Cross-modal retrieval in the full gallery."""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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


class Gallery(NamedTuple):
    """Embeddings of objects, captions or images, of which equal ids are right answers to each other."""

    embeddings: Tensor  # (M, E)
    ids: Tensor         # (M,) int64, of the object or caption
    owners: Tensor      # (M,) int64, number of the object

    def select(self, kept: Tensor) -> Gallery:
        """Return the entries of a mask (M,)."""
        return Gallery(*(part[kept] for part in self))


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
        view_slots: Indices of the views that there are for ``views``; None takes all. Views that neither a fit nor a
            training has seen are fair queries.
        queries: Split whose objects, captions and images are the queries, for example the fold that training has not
            seen; the gallery stays full. None takes all.
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

    def __init__(self, topk: Sequence[int] = (1, 5, 10), views: str = 'first', view_slots: Sequence[int] | None = None,
                 queries: str | None = None, photos: str | Path | None = None,
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
        self.view_slots = slice(None) if view_slots is None else list(view_slots)
        self.queries = queries
        self.photos = photos
        self.teacher = teacher
        self.device = device
        self.outcomes: dict[str, Outcomes] = {}  # of the last evaluation, in the main process
        self._uids: tuple[str, ...] = ()
        self._photos: tuple[Tensor, list[str]] | None = None  # embeddings (n, E), and the uid of each

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            reduced = dict(embedding=Tensor.float, text=Tensor.float, views=self._reduce)
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
            self.results.append({**kept, 'uid': sample.get('uid'), 'split': sample.get('split')})

    def _reduce(self, views: Tensor) -> Tensor:
        """Return what an object keeps of its views (V, E)."""
        if isinstance(self.view_slots, list) and not all(0 <= slot < len(views) for slot in self.view_slots):
            raise ValueError(f'view_slots={self.view_slots}: an object has {len(views)} views; expected indices below '
                             'that')
        return _REDUCED[self.views](views[self.view_slots])

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        objects, own = torch.stack([result['embedding'] for result in results]), torch.arange(len(results))
        asking, metrics = self._asking(results), {}
        self.outcomes, self._uids = {}, tuple(result['uid'] for result in results)
        if all('text' in result for result in results):
            captions = torch.tensor([result['caption_id'] for result in results])
            text = torch.stack([result['text'] for result in results])
            metrics.update(self._both_ways('text', asking, Gallery(objects, captions, own),
                                           [Gallery(text, captions, own)]))
        if all('views' in result for result in results):
            metrics.update(self._both_ways('image', asking, Gallery(objects, own, own), self._view_galleries(results)))
        if self.photos is not None:
            metrics.update(self._both_ways('photo', asking, Gallery(objects, own, own), [self._photo_gallery(results)]))
        if not metrics:
            raise ValueError('some objects have text features and others have views, but all need the same; cache them '
                             'with tools/cache_features.py')
        return metrics

    def _asking(self, results: list[dict]) -> Tensor:
        """Return the mask of the objects that are queries, (n,) bool."""
        splits = [result['split'] for result in results]
        if self.queries is not None and self.queries not in splits:
            raise ValueError(f'queries={self.queries!r}: the evaluated objects are of the splits '
                             f'{sorted(set(map(str, splits)))}; expected one of them')
        return torch.tensor([self.queries in (None, split) for split in splits])

    def _view_galleries(self, results: list[dict]) -> Iterator[Gallery]:
        """Iterate over the galleries of views, one at a time because of their size."""
        counts = torch.tensor([len(result['views']) for result in results])
        if self.views == 'all':
            owners = torch.arange(len(results)).repeat_interleave(counts)
            yield Gallery(torch.cat([result['views'] for result in results]), owners, owners)
            return
        for slot in range(int(counts.max())):
            having = (counts > slot).nonzero()[:, 0]
            yield Gallery(torch.stack([results[i]['views'][slot] for i in having]), having, having)

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
        owners = torch.tensor([number[uid] for uid in uids])
        return Gallery(embeddings, owners, owners)

    def _both_ways(self, name: str, asking: Tensor, objects: Gallery, others: Iterable[Gallery]) -> dict[str, float]:
        """Retrieve objects by others and others by those objects that have one, with pooled results.

        Args:
            name: Name of the others.
            asking: Mask of the objects that are queries, and whose others are, (n,) bool.
            objects: The n objects.
            others: Galleries, one at a time.
        """
        found, one_each = [], True
        for other in others:
            forth = other.select(asking[other.owners])
            back = objects.select(asking & torch.isin(objects.ids, other.ids))
            # One query an object, in its order.
            one_each &= not found and torch.equal(objects.ids, forth.ids)
            if len(forth.ids):
                found.append((rank_gallery(forth.embeddings, objects.embeddings, forth.ids, objects.ids),
                              rank_gallery(back.embeddings, other.embeddings, back.ids, other.ids)))
        if not found:
            raise ValueError(f'no {name} is of an object of the split {self.queries!r}, whose objects are the queries')
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
