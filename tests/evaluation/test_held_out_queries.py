"""Retrieval by held-out views of held-out objects in the gallery of all objects, with ranks counted by hand."""
import math

import pytest
import torch
from mmengine.structures import BaseDataElement

from clipgs_plugin.evaluation import RetrievalRecall
from clipgs_plugin.models import CachedViews

# Objects in the plane, 0, 30, 90 and 180 degrees; the first and the third are the fold.
ANGLES = (0.0, 30.0, 90.0, 180.0)
SPLITS = ('test', 'train', 'test', 'train')


def direction(degrees: float) -> torch.Tensor:
    return torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def objects(held_out=((10.0, 20.0), (0.0, 0.0), (89.0, 140.0), (0.0, 0.0))) -> list[BaseDataElement]:
    """Objects with two fitted views in their own directions, then two held-out views."""
    return [BaseDataElement(uid=f'o{i}', split=split, embedding=direction(angle),
                            views=torch.stack([direction(a) for a in (angle, angle, *views)]))
            for i, (angle, split, views) in enumerate(zip(ANGLES, SPLITS, held_out))]


def evaluate(metric: RetrievalRecall, samples: list) -> dict:
    metric.process(None, [sample.to_dict() for sample in samples])
    return metric.evaluate(len(samples))


def test_ranks_count_the_training_objects_too():
    found = evaluate(RetrievalRecall(topk=(1, 2), views='all', view_slots=[2, 3], queries='test'), objects())
    # 10 degrees: o0 first. 20: o1 is nearer, o0 second. 89: o2 first. 140: o3 at 40 degrees, o2 at 50 second.
    assert found['retrieval/image_to_3d_R@1'] == 50 and found['retrieval/image_to_3d_R@2'] == 100
    assert found['retrieval/image_to_3d_median_rank'] == 1.5 and found['retrieval/image_to_3d_mAP'] == 75
    # Of all eight held-out views: o0 at 0 degrees has the four of o1 and o3 before its own at 10; o2 its own first.
    assert found['retrieval/3d_to_image_median_rank'] == 3 and found['retrieval/3d_to_image_R@1'] == 50


def test_without_a_split_every_object_asks_in_every_view():
    found = evaluate(RetrievalRecall(topk=(1,), views='all'), objects())
    # 8 fitted views find their objects; of the held-out ones the same 2 of 4, and none of the 4 at 0 degrees.
    assert found['retrieval/image_to_3d_R@1'] == pytest.approx(100 * 10 / 16)


def test_ties_count_against_the_model():
    samples = objects()
    for sample in samples:
        sample.embedding = direction(45.0)
    found = evaluate(RetrievalRecall(topk=(1, 3, 4), views='all', view_slots=[2], queries='test'), samples)
    assert [found[f'retrieval/image_to_3d_R@{k}'] for k in (1, 3, 4)] == [0, 0, 100]
    assert found['retrieval/image_to_3d_median_rank'] == 4


@pytest.mark.parametrize('options, message', [
    (dict(queries='val'), "queries='val': the evaluated objects are of the splits"),
    (dict(view_slots=[4]), 'an object has 4 views'),
])
def test_queries_that_do_not_exist_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(RetrievalRecall(views='all', **options), objects())


def test_captions_are_queries_of_their_objects_only():
    samples = objects()
    for i, sample in enumerate(samples):
        sample.text, sample.caption_id = direction((0.0, 0.0, 30.0, 180.0)[i]), torch.tensor(i)
    found = evaluate(RetrievalRecall(topk=(1, 2, 3), queries='test'), samples)
    # The caption of o0 is right; that of o2 has o1 and o0 before it, at 0 and 30 degrees against 60.
    assert [found[f'retrieval/text_to_3d_R@{k}'] for k in (1, 2, 3)] == [50, 50, 100]


def test_cached_views_are_the_mean_of_unit_features():
    views = torch.tensor([[[3.0, 0.0], [0.0, 0.5], [9.0, 9.0]]])
    model = CachedViews(view_slots=[0, 1])
    assert torch.equal(model(None, dict(views=views)), torch.tensor([[0.5, 0.5]]))
    element, = model(None, dict(views=views, uid=['a'], split=['test']), mode='predict')
    assert torch.allclose(element.embedding, torch.full((2,), 0.5 ** 0.5)) and element.split == 'test'
    assert not list(model.parameters())
    with pytest.raises(KeyError, match='cache_features'):
        model(None, {})
    with pytest.raises(ValueError, match="mode='loss'"):
        model(None, dict(views=views), mode='loss')
