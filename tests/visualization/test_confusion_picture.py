import numpy as np
import pytest

from clipgs_plugin.visualization.confusion import READABLE, draw_confusion


def drawn(size):
    counts = np.diag(np.full(size, 3)) + np.eye(size, k=1, dtype=int)
    counts[0] = 0  # a class without objects
    figure = draw_confusion(counts, [f'class {i}' for i in range(size)])
    return figure, figure.axes[0]


def test_true_classes_are_rows_in_percent():
    _, axes = drawn(4)
    shown = axes.images[0].get_array()
    assert shown.tolist() == [[0, 0, 0, 0], [0, 75, 25, 0], [0, 0, 75, 25], [0, 0, 0, 100]]
    assert {text.get_text() for text in axes.texts} == {'75', '25', '100'}
    assert [label.get_text() for label in axes.get_yticklabels()] == [f'class {i}' for i in range(4)]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ('true', 'predicted')


@pytest.mark.parametrize('size', [READABLE + 1, 1156])
def test_many_classes_still_fit_on_a_page(size):
    figure, axes = drawn(size)
    assert max(figure.get_size_inches()) < 20 and not axes.texts
