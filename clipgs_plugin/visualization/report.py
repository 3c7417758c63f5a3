"""A training run on one HTML page that needs no other file: curves, results, retrieval gallery, confusion matrix."""
from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: .3em .9em; border-bottom: 1px solid #e5e5e5; text-align: right }
td:first-child, th:first-child, .words td, .words th { text-align: left } .words td { overflow-wrap: anywhere }
.note { color: #666 } img { max-width: 100% }
.row { display: flex; gap: 10px; align-items: flex-start; margin: .6em 0 }
.query { width: 190px; flex: none; overflow-wrap: anywhere }
figure { margin: 0; width: 128px; font-size: 12px; line-height: 1.3 }
figure img { width: 128px; border: 3px solid #ddd }
figure.hit img { border-color: #3a9a4b } figure.miss img { border-color: #c9c9c9 }
"""


@dataclass(frozen=True)
class Picture:
    """A picture of a gallery with the words under it; ``hit`` frames it as right or wrong, None as neither."""

    image: np.ndarray  # (H, W, 3) uint8
    caption: str
    hit: bool | None = None


@dataclass(frozen=True)
class GalleryRow:
    """A query and what was found for it, best first."""

    query: str
    results: Sequence[Picture]


@dataclass(frozen=True)
class RunReport:
    """What the page shows. Every part that is empty is left out."""

    title: str
    summary: Sequence[str] = ()
    curves: dict[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)  # name -> steps, values
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    gallery: Sequence[GalleryRow] = ()
    files: Sequence[GalleryRow] = ()
    classes: Sequence[str] = ()
    confusion: np.ndarray | None = None  # (C, C) counts, rows are the truth


def render_html(report: RunReport) -> str:
    """The page of a report."""
    parts = [f'<p>{html.escape(line)}</p>' for line in report.summary]
    if report.rows:
        parts += ['<h2>Results on unseen objects</h2>', table_tag(report.columns, report.rows)]
    if report.curves:
        parts += ['<h2>Training</h2>', image_tag(figure_png(_draw_curves(report.curves)), 'training curves')]
    for title, note, rows in (
            ('Retrieval: objects for a text', 'Green frames an object of the right category.', report.gallery),
            ('Your files', 'The best of the categories the model was trained on; it knows no others. Objects are '
             'expected to stand with y up: tools/embed.py turns them with --up.', report.files)):
        if rows:
            parts += [f'<h2>{title}</h2><p class="note">{note}</p>', *(_gallery_row(row) for row in rows)]
    if report.confusion is not None:
        parts += ['<h2>Confusion matrix</h2>',
                  '<p class="note">Rows are the truth, columns the answer, in percent of the row.</p>',
                  image_tag(figure_png(_draw_confusion(report.confusion, report.classes)), 'confusion matrix')]
    return page(report.title, parts)


def draw_gallery(rows: Sequence[GalleryRow], size: int = 96, words: int = 220) -> Image.Image:
    """A gallery as one picture: each query beside what it found, right answers framed in green.

    Args:
        rows: As many results in each.
        size: Side of a result, pixels.
        words: Width of the column of queries, pixels.
    """
    import textwrap

    from PIL import Image, ImageDraw, ImageFont
    pitch = size + 8
    picture = Image.new('RGB', (words + pitch * max(len(row.results) for row in rows), pitch * len(rows)), 'white')
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for y, row in enumerate(rows):
        lines = textwrap.wrap(row.query, words // 8)
        draw.multiline_text((8, y * pitch + pitch // 2), '\n'.join(lines), 'black', font, 'lm')
        for x, result in enumerate(row.results):
            corner = words + x * pitch, y * pitch
            frame = {True: (58, 154, 75), False: (210, 210, 210), None: (255, 255, 255)}[result.hit]
            draw.rectangle((*corner, corner[0] + size + 5, corner[1] + size + 5), fill=frame)
            resized = Image.fromarray(result.image).resize((size, size), Image.Resampling.LANCZOS)
            picture.paste(resized, (corner[0] + 3, corner[1] + 3))
    return picture


def page(title: str, parts: Sequence[str], style: str = '') -> str:
    """A whole page in HTML: its title as a heading, then parts that are HTML already; ``style`` adds to the usual."""
    title = html.escape(title)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<style>{STYLE}{style}</style></head><body><h1>{title}</h1>{"".join(parts)}</body></html>')


def table_tag(columns: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> str:
    """A table in HTML; cells are text, aligned as ``words`` or as numbers after a name."""
    head = ''.join(f'<th>{html.escape(c)}</th>' for c in columns)
    body = ''.join('<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<table{" class=words" * words}><tr>{head}</tr>{body}</table>'


def _gallery_row(row: GalleryRow) -> str:
    frames = {True: 'hit', False: 'miss', None: ''}
    figures = ''.join(
        f'<figure class="{frames[p.hit]}">{image_tag(array_png(p.image), p.caption)}'
        f'<figcaption>{html.escape(p.caption)}</figcaption></figure>' for p in row.results)
    return f'<div class="row"><div class="query">{html.escape(row.query)}</div>{figures}</div>'


def image_tag(png: bytes, description: str) -> str:
    """A picture in HTML that needs no other file."""
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def array_png(image: np.ndarray) -> bytes:
    """A picture, (H, W, 3) uint8, as PNG."""
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """A figure of matplotlib as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, bbox_inches='tight')
    return buffer.getvalue()


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


def _draw_confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 1.5 + 0.27 * len(classes)
    figure = Figure(figsize=(side, side), layout='constrained')
    axes = figure.add_subplot()
    axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
    axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes, fontsize=7)
    for row, column in zip(*np.nonzero(percent >= 0.5)):
        value = percent[row, column]
        axes.text(column, row, f'{value:.0f}', ha='center', va='center', fontsize=6,
                  color='white' if value > 50 else 'black')
    return figure
