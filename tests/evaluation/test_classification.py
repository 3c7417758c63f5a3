"""Accuracy of a classifier, its confusion matrix and the files of it."""
import csv
import json

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from clipgs_plugin.engine.confusion_hook import write_confusion
from clipgs_plugin.evaluation import ClassificationAccuracy, ConfusionMatrix

CLASSES = ('apple', 'chair', 'duck', 'lamp')


def evaluated(scores, labels, batch=4, **options):
    """Evaluate in batches, of which the last may be incomplete."""
    metric = ClassificationAccuracy(**options)
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = dict(classes=CLASSES)
    for start in range(0, len(labels), batch):
        evaluator.process([BaseDataElement(scores=score, label=int(label), uid=str(start))
                           for score, label in zip(scores[start:start + batch], labels[start:start + batch])])
    return evaluator.evaluate(len(labels)), metric.confusion


@pytest.mark.parametrize('batch', [4, 5], ids=['last of three', 'last of one'])
def test_accuracies_are_those_of_a_plain_loop_over_an_incomplete_last_batch(batch):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(11, 4, generator=generator).softmax(-1)
    labels = torch.randint(0, 3, (11,), generator=generator)  # no lamp
    metrics, confusion = evaluated(scores, labels, batch, topk=(1, 3, 5), per_class=True)
    counts, top3 = np.zeros((4, 4), int), 0
    for row, label in zip(scores.tolist(), labels.tolist()):
        order = sorted(range(4), key=lambda i: -row[i])
        counts[label, order[0]] += 1
        top3 += label in order[:3]
    recalls = [counts[i, i] / counts[i].sum() for i in range(3)]
    assert metrics['accuracy/top1'] == pytest.approx(100 * np.trace(counts) / 11)
    assert metrics['accuracy/top3'] == pytest.approx(100 * top3 / 11)
    assert metrics['accuracy/mean_class_top1'] == pytest.approx(100 * np.mean(recalls))
    assert metrics['accuracy/top1/duck'] == pytest.approx(100 * recalls[2])
    assert 'accuracy/top5' not in metrics and 'accuracy/top1/lamp' not in metrics
    assert np.array_equal(confusion.counts, counts) and confusion.classes == CLASSES


def test_the_size_of_batches_does_not_matter():
    scores = torch.randn(13, 4, generator=torch.Generator().manual_seed(1)).softmax(-1)
    labels = torch.arange(13) % 4
    results = [evaluated(scores, labels, batch) for batch in (1, 5, 13)]
    assert all(metrics == results[0][0] and torch.equal(found.counts, results[0][1].counts)
               for metrics, found in results)


def test_a_constant_classifier_has_no_accuracy():
    metrics, _ = evaluated(torch.full((4, 4), 0.25), torch.arange(4))
    assert metrics['accuracy/top1'] == 0.0


def test_the_report_has_recall_and_precision():
    matrix = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]])
    bath, bed, desk = ConfusionMatrix(('bath', 'bed', 'desk'), matrix).report()
    assert bath == dict(name='bath', objects=3, recall=pytest.approx(100 / 3), precision=100.0)
    assert (bed['recall'], bed['precision']) == (100.0, 50.0)
    assert desk == dict(name='desk', objects=0, recall=None, precision=0.0)


def test_the_files_hold_the_matrix(tmp_path):
    confusion = ConfusionMatrix(('night, stand', 'bed'), torch.tensor([[3, 1], [0, 2]]))
    write_confusion(confusion, tmp_path / 'confusion_test')
    with (tmp_path / 'confusion_test.csv').open(newline='') as file:
        assert list(csv.reader(file)) == [['', 'night, stand', 'bed'], ['night, stand', '3', '1'], ['bed', '0', '2']]
    content = json.loads((tmp_path / 'confusion_test.json').read_text())
    assert content == dict(classes=confusion.report(), counts=[[3, 1], [0, 2]])


def test_objects_without_a_class_and_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"object '0' has no class"):
        evaluated(torch.rand(1, 4), torch.tensor([-1]))
    with pytest.raises(ValueError, match=r'the model has 3 classes, the dataset 4; set num_classes=4'):
        evaluated(torch.rand(2, 3), torch.tensor([0, 1]))
