"""Answers of metrics, object by object."""
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from clipgs_plugin.evaluation import ClassEmbeddings, ClassificationAccuracy, RetrievalRecall, ZeroShotAccuracy

CLASSES = ('cup', 'owl', 'boat')


@pytest.fixture
def samples():
    """Objects of which some are answered right: the embedding and the scores are noisy axes of their class."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for i in range(20):
        embedding = torch.eye(3)[i % 3] + 0.8 * torch.randn(3, generator=generator)
        found.append(BaseDataElement(uid=f'o{i}', label=torch.tensor(i % 3), scores=embedding, embedding=embedding,
                                     text=embedding + torch.randn(3, generator=generator), caption_id=torch.tensor(i),
                                     views=embedding + torch.randn(2, 3, generator=generator)))
    return found


def evaluated(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(samples), 8):
        evaluator.process(samples[start:start + 8])
    return evaluator.evaluate(len(samples))


def check(metric, found, samples, name):
    outcomes = metric.outcomes[name]
    assert outcomes.uids == tuple(sample.uid for sample in samples)
    assert 100 * outcomes.right.double().mean() == pytest.approx(found[f'{metric.prefix}/{name}'])
    assert 0 < outcomes.right.sum() < len(samples)
    return outcomes.right


def zero_shot():
    return ZeroShotAccuracy(class_embeddings=ClassEmbeddings(CLASSES, torch.eye(3)))


@pytest.mark.parametrize('build', [zero_shot, ClassificationAccuracy])
def test_classification_answers_are_those_of_the_nearest_class(build, samples):
    metric = build()
    right = check(metric, evaluated(metric, samples), samples, 'top1')
    assert right.tolist() == [int(sample.scores.argmax()) == int(sample.label) for sample in samples]


def test_objects_without_a_class_have_no_answer(samples):
    metric = zero_shot()
    samples[4].label = torch.tensor(-1)
    evaluated(metric, samples)
    assert metric.outcomes['top1'].uids == tuple(f'o{i}' for i in range(20) if i != 4)


def test_retrieval_has_an_answer_for_each_object_in_each_direction(samples):
    metric = RetrievalRecall()
    found = evaluated(metric, samples)
    assert set(metric.outcomes) == {f'{way}_R@1' for way in ('text_to_3d', '3d_to_text', 'image_to_3d', '3d_to_image')}
    objects, text = (torch.nn.functional.normalize(torch.stack([sample.get(key) for sample in samples]), dim=-1)
                     for key in ('embedding', 'text'))
    right = check(metric, found, samples, '3d_to_text_R@1')
    assert right.tolist() == ((objects @ text.T).argmax(1) == torch.arange(20)).tolist()


def test_queries_that_are_not_one_an_object_have_no_answers(samples):
    metric = RetrievalRecall(views='each')
    evaluated(metric, samples)
    assert set(metric.outcomes) == {'text_to_3d_R@1', '3d_to_text_R@1'}
