"""Charts of pages: colours that are readable on light and on dark, and figures as SVG in the colour of the text."""
from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RUNS = ('#3f86d8', '#e0752d', '#35a05c', '#c4569b', '#8b6fd6', '#ad8f1d', '#1fa3a8', '#d4514f')
STEPS = 300                  # points of a curve; longer ones are averaged
_TEXT = '#7b8794'            # takes the place of the colour of the text until the figure is SVG
_GOLDEN = 137.50776405       # degrees between the hues of two classes

Curve = tuple[Sequence[float], Sequence[float]]  # steps and values


def class_colors(count: int) -> list[str]:
    """Choose colours of equal lightness, of which neighbours differ most in hue (OKLCH).

    Args:
        count: Number of classes.

    Returns:
        Hexadecimal colours.
    """
    colors = []
    for i in range(count):
        lightness, chroma = ((0.64, 0.15), (0.72, 0.11), (0.57, 0.13))[i % 3]
        hue = np.deg2rad(i * _GOLDEN)
        a, b = chroma * np.cos(hue), chroma * np.sin(hue)
        lms = np.array([lightness + 0.3963377774 * a + 0.2158037573 * b,
                        lightness - 0.1055613458 * a - 0.0638541728 * b,
                        lightness - 0.0894841775 * a - 1.2914855480 * b]) ** 3
        linear = np.array([[4.0767416621, -3.3077115913, 0.2309699292], [-1.2684380046, 2.6097574011, -0.3413193965],
                           [-0.0041960863, -0.7034186147, 1.7076147010]]) @ lms
        rgb = np.where(linear > 0.0031308, 1.055 * np.clip(linear, 0, None) ** (1 / 2.4) - 0.055, 12.92 * linear)
        colors.append('#' + ''.join(f'{value:02x}' for value in np.clip(rgb * 255, 0, 255).round().astype(int)))
    return colors


def themed_figure(width: float, height: float) -> Figure:
    """Make a figure without background whose text and lines take the colour of the text of :func:`figure_svg`.

    Args:
        width, height: Size in inches.
    """
    from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout='constrained', facecolor='none')


def theme_axes(axes) -> None:
    """Draw the frame, ticks and titles of matplotlib axes in the colour of the text."""
    axes.set_facecolor('none')
    axes.tick_params(colors=_TEXT, which='both')
    for spine in axes.spines.values():
        spine.set_color(_TEXT)
        spine.set_linewidth(0.5)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(_TEXT)


def figure_svg(figure: Figure, description: str) -> str:
    """Render a matplotlib figure as SVG in HTML; text stays text, without mathematics between dollar signs."""
    import html

    import matplotlib
    for text in figure.findobj(lambda artist: hasattr(artist, 'set_parse_math')):
        text.set_parse_math(False)
    buffer = io.StringIO()
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': description, 'font.family': 'sans-serif'}):
        figure.savefig(buffer, format='svg', transparent=True, metadata=dict.fromkeys(
            ('Creator', 'Date', 'Format', 'Type')))
    svg = buffer.getvalue()
    svg = re.sub(r'\s*<metadata>.*?</metadata>', '', svg[svg.index('<svg'):], flags=re.DOTALL)
    svg = svg.replace(_TEXT, 'currentColor')
    return svg.replace('<svg', f'<svg role="img" aria-label="{html.escape(description)}"', 1)


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[Curve]]], colors: Mapping[str, str]) -> Figure:
    """Draw a chart a quantity with one line a run.

    Args:
        curves: Lines by quantity and run; a run has several if seeds were repeated.
        colors: Colour of each run.
    """
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = themed_figure(3.4 * columns, 2.4 * lines)
    for place, (name, runs) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(lines, columns, place)
        for run, repeats in runs.items():
            for steps, values in repeats:
                steps, values = thinned(steps, values)
                axes.plot(steps, values, color=colors[run], linewidth=1.4, alpha=0.9 if len(repeats) == 1 else 0.6,
                          marker='.' if len(steps) < 40 else None, markersize=4)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel('evaluation' if '/' in name else 'iteration', fontsize=7)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25, color=_TEXT, linewidth=0.5)
        for side in ('top', 'right'):
            axes.spines[side].set_visible(False)
        theme_axes(axes)
    return figure


def thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Average a long curve over up to ``STEPS`` runs of neighbours."""
    parts = min(len(steps), STEPS)
    bounds = np.linspace(0, len(steps), parts + 1).round().astype(int)[:-1]
    counts = np.diff(np.append(bounds, len(steps)))
    return (np.add.reduceat(np.asarray(steps, float), bounds) / counts,
            np.add.reduceat(np.asarray(values, float), bounds) / counts)
