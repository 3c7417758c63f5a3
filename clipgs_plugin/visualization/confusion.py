"""Pictures of confusion matrices."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.visualization.charts import theme_axes, themed_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READABLE = 60  # classes whose names and numbers fit on a page


def draw_confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw the percentages of rows; more than ``READABLE`` classes have neither names nor numbers.

    Args:
        counts: Objects by true (rows) and predicted class, (C, C).
        classes: Names of the C classes.
    """
    from matplotlib.colors import LinearSegmentedColormap
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    readable = len(classes) <= READABLE
    side = 1.5 + 0.27 * min(len(classes), READABLE)
    figure = themed_figure(side, side)
    axes = figure.add_subplot()
    # From clear to blue, so that the background of the page is the zero; a few percent are visible already.
    blue = (0.18, 0.44, 0.77)
    colors = LinearSegmentedColormap.from_list('share', [(0, (*blue, 0)), (0.01, (*blue, 0.18)), (1, (*blue, 1))])
    image = axes.imshow(percent, cmap=colors, vmin=0, vmax=100, interpolation='nearest')
    axes.set_xlabel('predicted')
    axes.set_ylabel('true')
    theme_axes(axes)
    if readable:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
        for row, column in zip(*np.nonzero(percent >= 0.5)):
            value = percent[row, column]
            axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=6,
                      color='white' if value > 50 else axes.xaxis.label.get_color())
    else:
        theme_axes(figure.colorbar(image, shrink=0.7, label='% of the row').ax)
    return figure
