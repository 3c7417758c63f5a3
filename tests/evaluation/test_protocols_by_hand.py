"""Each protocol on objects in the plane whose figures are counted by hand.

Among them are ties, objects that share a caption, objects of one view, a class without objects and a last batch of one.
Few-shot tasks, held-out queries and photographs have theirs beside their other tests.
"""
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from clipgs_plugin.evaluation import ClassEmbeddings, ClassificationAccuracy, RetrievalRecall, ZeroShotAccuracy

EAST, NORTH, WEST, SOUTH = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))
BETWEEN = (1.0, 1.0)  # as far from east as from north, to the last bit
CLASSES = ('east', 'north', 'west', 'south')


def evaluate(metric, samples, batch):
    """Evaluate in batches, the last of which has one object."""
    assert len(samples) % batch == 1
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), batch):
        evaluator.process([BaseDataElement(**sample) for sample in samples[start:start + batch]])
    return {name.partition('/')[2]: value for name, value in evaluator.evaluate(len(samples)).items()}


def test_zero_shot():
    metric = ZeroShotAccuracy(class_embeddings=ClassEmbeddings(CLASSES, torch.tensor([EAST, NORTH, WEST, SOUTH])),
                              topk=(1, 2, 3), per_class=True)
    places = [(0, EAST), (0, BETWEEN), (1, NORTH), (2, (-0.1, 1.0)), (2, WEST)]  # none of south
    found = evaluate(metric, [dict(uid=str(i), label=label, embedding=torch.tensor(place))
                              for i, (label, place) in enumerate(places)], batch=4)
    # Ranks 1, 2 (a tie with north), 1, 2 (north is nearer), 1.
    assert found == {'top1': 60, 'top2': 100, 'top3': 100, 'mean_class_top1': pytest.approx(100 * (0.5 + 1 + 0.5) / 3),
                     'top1/east': 50, 'top1/north': 100, 'top1/west': 50}
    assert metric.confusion.counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_supervised_classification():
    scores = [(0, [.7, .1, .1, .1]), (0, [.4, .4, .1, .1]), (1, [.1, .5, .3, .1]), (2, [.1, .4, .3, .2]),
              (2, [.25, .25, .25, .25])]
    metric = ClassificationAccuracy(topk=(1, 2, 4))
    found = evaluate(metric, [dict(uid=str(i), label=label, scores=torch.tensor(row))
                              for i, (label, row) in enumerate(scores)], batch=2)
    # Ranks 1, 2 (a tie), 1, 2, 4 (a tie of all).
    assert found == {'top1': 40, 'top2': 80, 'top4': 100, 'mean_class_top1': pytest.approx(100 * (0.5 + 1 + 0) / 3)}
    assert metric.confusion.counts.diagonal().tolist() == [1, 1, 0, 0] and int(metric.confusion.counts.sum()) == 5


def objects():
    """Two objects share a caption; the first has two views, the others have one."""
    places, texts, captions = (EAST, NORTH, WEST), (EAST, NORTH, EAST), (1, 2, 1)
    views = ([EAST, BETWEEN], [NORTH], [SOUTH])
    return [dict(uid=str(i), embedding=torch.tensor(place), text=torch.tensor(text), caption_id=caption,
                 views=torch.tensor(seen))
            for i, (place, text, caption, seen) in enumerate(zip(places, texts, captions, views))]


def test_retrieval_by_captions():
    found = evaluate(RetrievalRecall(topk=(1,)), objects(), batch=2)
    # The caption east has its objects at 1 and 3, with north between: AP (1/1 + 2/3) / 2 for both of its copies.
    assert (found['text_to_3d_R@1'], found['text_to_3d_median_rank']) == (100, 1)
    assert found['text_to_3d_mAP'] == pytest.approx(100 * (5 / 6 + 1 + 5 / 6) / 3)
    # The object west has north at 1, and the two copies of its caption at 2 and 3.
    assert found['3d_to_text_R@1'] == pytest.approx(200 / 3) and found['3d_to_text_median_rank'] == 1
    assert found['3d_to_text_mAP'] == pytest.approx(100 * (1 + 1 + (1 / 2 + 2 / 3) / 2) / 3)


@pytest.mark.parametrize('views, ranks', [
    ('first', [1, 1, 2]),      # south is as far from east as from west, a tie
    ('mean', [1, 1, 2]),       # that of east and between is nearer to east
    ('each', [1, 1, 2, 2]),    # the second slot has the first object's alone: between, a tie of east and north
    ('all', [1, 2, 1, 2])])
def test_retrieval_by_views(views, ranks):
    found = evaluate(RetrievalRecall(topk=(1, 2), views=views), objects(), batch=2)
    ranks = torch.tensor(ranks)
    assert found['image_to_3d_R@1'] == pytest.approx(100 * (ranks == 1).double().mean().item())
    assert found['image_to_3d_R@2'] == 100 and found['image_to_3d_median_rank'] == ranks.double().quantile(0.5)
    assert found['image_to_3d_mAP'] == pytest.approx(100 * (1 / ranks).mean().item())


def test_retrieval_of_views():
    found = evaluate(RetrievalRecall(topk=(1,), views='all'), objects(), batch=2)
    # East has its views at 1 and 2. North has its own at 1. West has its one, south, after north by a tie.
    assert found['3d_to_image_R@1'] == pytest.approx(200 / 3)
    assert found['3d_to_image_mAP'] == pytest.approx(100 * (1 + 1 + 1 / 2) / 3)
