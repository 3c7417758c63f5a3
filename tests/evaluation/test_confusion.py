import pytest
import torch

from clipgs_plugin.evaluation import ConfusionMatrix, confusion_matrix, topk_accuracy


def matrix():
    return ConfusionMatrix(('cup', 'owl', 'key'), torch.tensor([[3, 1, 0], [2, 0, 2], [0, 0, 0]]))


def test_counts_by_hand_with_ties_against_the_true_class():
    scores = torch.tensor([[.9, .1, .0], [.5, .5, .1], [.5, .5, .1], [.2, .2, .2], [.1, .2, .7]])
    labels = torch.tensor([0, 0, 1, 2, 2])
    found = confusion_matrix(scores, labels)
    assert found.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 1]]
    assert 100 * found.diagonal().sum() / found.sum() == topk_accuracy(scores, labels, (1,))[1]


def test_one_class_is_always_right():
    assert confusion_matrix(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)).tolist() == [[3]]


def test_accuracies_objects_and_frequent_errors():
    found = matrix()
    assert found.accuracies == {'cup': 75, 'owl': 0, 'key': None} and found.objects == {'cup': 4, 'owl': 4, 'key': 0}
    assert found.confusions(9) == [('owl', 'cup', 2), ('owl', 'key', 2), ('cup', 'owl', 1)]
    assert found.confusions(1) == [('owl', 'cup', 2)]


def test_json_keeps_everything():
    content = matrix().to_json()
    assert content['counts'] == [[0, 0, 3], [0, 1, 1], [1, 0, 2], [1, 2, 2]]
    found = ConfusionMatrix.from_json(content)
    assert found.classes == matrix().classes and torch.equal(found.counts, matrix().counts)


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match='not a count of two of 2 classes'):
        ConfusionMatrix.from_json({'classes': ['a', 'b'], 'counts': [[0, 2, 1]]})
    with pytest.raises(ValueError, match='for 2 classes'):
        ConfusionMatrix(('a', 'b'), torch.zeros(2, 3))
