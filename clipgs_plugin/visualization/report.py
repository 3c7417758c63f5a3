"""Report of a training run on one HTML page: curves, results, retrieval gallery, confusion matrix."""
from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.visualization.confusion import draw_confusion
from clipgs_plugin.visualization.html_page import array_png, figure_png, image_tag, page, table_tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

@dataclass(frozen=True)
class Picture:
    """Image of a gallery with a caption; ``hit`` frames it as right or wrong, None leaves it unframed."""

    image: np.ndarray  # (H, W, 3) uint8
    caption: str
    hit: bool | None = None


@dataclass(frozen=True)
class GalleryRow:
    """Query and its results, best first."""

    query: str
    results: Sequence[Picture]


@dataclass(frozen=True)
class Table:
    """Table under a heading, with a note."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RunReport:
    """Contents of the page; empty parts are left out."""

    title: str
    summary: Sequence[str] = ()
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)  # name -> steps, values
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    gallery: Sequence[GalleryRow] = ()
    files: Sequence[GalleryRow] = ()
    classes: Sequence[str] = ()
    confusion: np.ndarray | None = None  # (C, C) counts, rows are the truth
    tables: Sequence[Table] = ()
    missing: str = ''  # parts that could not be computed, and the remedy


def render_html(report: RunReport) -> str:
    """Render a report as an HTML page."""
    parts = [f'<p>{html.escape(line)}</p>' for line in (*report.summary, report.missing) if line]
    if report.rows:
        parts += ['<h2>Results on unseen objects</h2>', table_tag(report.columns, report.rows)]
    if report.curves:
        parts += ['<h2>Training</h2>', image_tag(figure_png(_draw_curves(report.curves)), 'training curves')]
    for title, note, rows in (
            ('Retrieval: objects for a text', 'A green frame marks an object of the right category.', report.gallery),
            ('Your files', 'The best categories among those of the training data; the model knows no others. Objects '
             'need the y axis up: tools/embed.py rotates them with --up.', report.files)):
        if rows:
            parts += [f'<h2>{title}</h2><p class="note">{note}</p>', *(_gallery_row(row) for row in rows)]
    if report.confusion is not None:
        parts += ['<h2>Confusion matrix</h2>',
                  '<p class="note">Rows are true categories, columns predictions, in percent of the row.</p>',
                  image_tag(figure_png(draw_confusion(report.confusion, report.classes)), 'confusion matrix')]
    for table in report.tables:
        parts += [f'<h2>{html.escape(table.title)}</h2><p class="note">{html.escape(table.note)}</p>',
                  table_tag(table.columns, table.rows)]
    return page(report.title, parts)


def draw_gallery(rows: Sequence[GalleryRow], size: int = 96, words: int = 220) -> Image.Image:
    """Draw a gallery as one image: each query beside its results, with correct results framed in green.

    Args:
        rows: Queries, all with the same number of results.
        size: Side of a result in pixels.
        words: Width of the query column in pixels.
    """
    import textwrap

    from PIL import Image, ImageDraw, ImageFont
    pitch = size + 8
    gallery = Image.new('RGB', (words + pitch * max(len(row.results) for row in rows), pitch * len(rows)), 'white')
    draw, font = ImageDraw.Draw(gallery), ImageFont.load_default(14)
    for y, row in enumerate(rows):
        lines = textwrap.wrap(row.query, words // 8)
        draw.multiline_text((8, y * pitch + pitch // 2), '\n'.join(lines), 'black', font, 'lm')
        for x, result in enumerate(row.results):
            corner = words + x * pitch, y * pitch
            frame = {True: (58, 154, 75), False: (210, 210, 210), None: (255, 255, 255)}[result.hit]
            draw.rectangle((*corner, corner[0] + size + 5, corner[1] + size + 5), fill=frame)
            resized = Image.fromarray(result.image).resize((size, size), Image.Resampling.LANCZOS)
            gallery.paste(resized, (corner[0] + 3, corner[1] + 3))
    return gallery


def _gallery_row(row: GalleryRow) -> str:
    frames = {True: 'hit', False: 'miss', None: ''}
    figures = ''.join(
        f'<figure class="{frames[p.hit]}">{image_tag(array_png(p.image), p.caption)}'
        f'<figcaption>{html.escape(p.caption)}</figcaption></figure>' for p in row.results)
    return f'<div class="row"><div class="query">{html.escape(row.query)}</div>{figures}</div>'


def _draw_curves(curves: dict[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    from matplotlib.figure import Figure
    columns = min(3, len(curves))
    lines = -(-len(curves) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines), layout='constrained')
    for i, (name, (steps, values)) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(lines, columns, i)
        axes.plot(steps, values, marker='.' if len(steps) < 40 else None)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    return figure
