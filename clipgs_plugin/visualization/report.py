"""Report of runs on one HTML page: metrics, curves, differences, gallery, map of embeddings, confusion matrices."""
from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.visualization.charts import RUNS, Curve, draw_curves, figure_svg
from clipgs_plugin.visualization.confusion import draw_confusion
from clipgs_plugin.visualization.embedding_map import EmbeddingMap, map_section
from clipgs_plugin.visualization.html_page import array_webp, image_tag, page, table_tag

if TYPE_CHECKING:
    from PIL import Image

STYLE = """
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; position: sticky; top: 0; background: var(--bg); padding: .5em 0;
  border-bottom: 1px solid var(--line); font-size: 13px; z-index: 5 } nav a { text-decoration: none }
h2 { scroll-margin-top: 3em }
.swatch { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em }
.best { font-weight: 700 } tr.first td { border-top: 2px solid var(--line) }
.tall { max-height: 34em; overflow-y: auto }
.bar { width: 160px; min-width: 120px; position: relative }
.bar span { position: absolute; top: 30%; height: 40%; border-radius: 2px }
.bar .up { left: 50% } .bar .down { right: 50% }
.bar .ahead { background: var(--good) } .bar .behind { background: #c9584c }
"""


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
class Confusion:
    """Confusion matrix under a heading."""

    title: str
    classes: Sequence[str]
    counts: np.ndarray  # (C, C), rows are the truth


@dataclass(frozen=True)
class RunReport:
    """Contents of the page; empty parts are left out."""

    title: str
    summary: Sequence[str] = ()
    runs: Table | None = None  # one row a run, in the order of the colours; its first column is the name
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()  # of one evaluated run: student, teacher, chance
    metrics: Table | None = None  # metrics by run
    curves: Mapping[str, Mapping[str, Sequence[Curve]]] = field(default_factory=dict)  # by quantity and run
    differences: Sequence[Table] = ()
    gallery: Sequence[GalleryRow] = ()
    maps: Sequence[EmbeddingMap] = ()
    files: Sequence[GalleryRow] = ()
    confusions: Sequence[Confusion] = ()
    tables: Sequence[Table] = ()
    missing: str = ''  # parts that could not be computed, and the remedy


def run_colors(names: Iterable[str]) -> dict[str, str]:
    """Choose the colour of each run."""
    return dict(zip(names, itertools.cycle(RUNS)))


def render_html(report: RunReport) -> str:
    """Render a report as an HTML page."""
    sections: list[tuple[str, list[str]]] = []

    def add(heading: str, *parts: str) -> None:
        sections.append((heading, list(parts)))

    colors = run_colors([] if report.runs is None else [row[0] for row in report.runs.rows])
    style = STYLE
    if report.runs is not None:
        add('Runs', _runs_tag(report.runs, colors))
    if report.metrics is not None:
        add(report.metrics.title, _note(report.metrics.note), _metrics_tag(report.metrics))
    if report.rows:
        add('Results on unseen objects', table_tag(report.columns, report.rows))
    if report.curves:
        add('Training', _legend(report.curves, colors), _curves_tag(report.curves, colors))
    for table in report.differences:
        add(table.title, _note(table.note), _differences_tag(table))
    if report.gallery:
        add('Retrieval: objects for a text', _note('A green frame marks an object of the right category.'),
            *map(_gallery_row, report.gallery))
    if report.maps:
        content, more = map_section(report.maps)
        style += more
        add('Map of the embeddings', content)
    if report.files:
        add('Your files', _note('The best categories among those of the training data; the model knows no others. '
                                'Objects need the y axis up: tools/embed.py rotates them with --up.'),
            *map(_gallery_row, report.files))
    if report.confusions:
        note = _note('Rows are true categories, columns predictions, in percent of the row.')
        add('Confusion matrix' if len(report.confusions) == 1 else 'Confusion matrices', note,
            *(_confusion_tag(each, len(report.confusions) > 1) for each in report.confusions))
    for table in report.tables:
        add(table.title, _note(table.note), table_tag(table.columns, table.rows))
    links = ''.join(f'<a href="#part{i}">{html.escape(heading)}</a>' for i, (heading, _) in enumerate(sections))
    parts = [f'<p>{html.escape(line)}</p>' for line in (*report.summary, report.missing) if line]
    parts += [f'<nav>{links}</nav>'] if len(sections) > 2 else []
    for i, (heading, contents) in enumerate(sections):
        parts += [f'<h2 id="part{i}">{html.escape(heading)}</h2>', *contents]
    return page(report.title, parts, style)


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def _swatch(color: str) -> str:
    return f'<span class="swatch" style="background:{color}"></span>'


def _runs_tag(table: Table, colors: Mapping[str, str]) -> str:
    head = ''.join(f'<th>{html.escape(column)}</th>' for column in table.columns)
    body = ''.join(f'<tr><td>{_swatch(colors[row[0]])}{html.escape(row[0])}</td>'
                   + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row[1:]) + '</tr>' for row in table.rows)
    return f'<div class="wide"><table class="words"><tr>{head}</tr>{body}</table></div>'


def _metrics_tag(table: Table) -> str:
    """Format metrics by run; the best of each row is bold, rows of another family have a line above."""
    head = ''.join(f'<th>{html.escape(column)}</th>' for column in table.columns)
    body, family = [], None
    for name, *cells in table.rows:
        start = ' class="first"' if family not in (None, name.partition('/')[0]) else ''
        family = name.partition('/')[0]
        best = _best(name, cells)
        body.append(f'<tr{start}><td>{html.escape(name)}</td>' + ''.join(
            f'<td{" class=best" if i in best else ""}>{html.escape(cell)}</td>'
            for i, cell in enumerate(cells)) + '</tr>')
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(body)}</table></div>'


def _best(name: str, cells: Sequence[str]) -> list[int]:
    """Return the columns with the best figure, none where all are equal or the direction is unknown."""
    values = {i: float(cell.split()[0]) for i, cell in enumerate(cells) if cell not in ('-', 'nan')}
    if len(set(values.values())) < 2 or name.endswith('seconds') or 'loss' in name:
        return []
    best = min(values.values()) if name.endswith('rank') else max(values.values())
    return [i for i, value in values.items() if value == best]


def _differences_tag(table: Table) -> str:
    """Format differences with a bar each, green if the first run is ahead; the last column has them."""
    values = [0.0 if row[-1] == '-' else float(row[-1]) for row in table.rows]
    widest = max(map(abs, values), default=0) or 1.0
    head = ''.join(f'<th>{html.escape(column)}</th>' for column in (*table.columns, ''))
    body = ''.join('<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row)
                   + f'<td class="bar"><span class="{_bar(row[0], value)}" '
                     f'style="width:{50 * abs(value) / widest:.1f}%"></span></td></tr>'
                   for row, value in zip(table.rows, values))
    return f'<div class="wide tall"><table><tr>{head}</tr>{body}</table></div>'


def _bar(name: str, value: float) -> str:
    """Return the side of a bar by the sign, and its colour by what is better; a low rank is."""
    is_ahead = value > 0 if not name.endswith('rank') else value < 0
    return f'{"up" if value > 0 else "down"} {"ahead" if is_ahead else "behind"}'


def _legend(curves: Mapping[str, Mapping[str, Sequence[Curve]]], colors: Mapping[str, str]) -> str:
    runs = dict.fromkeys(run for lines in curves.values() for run in lines)
    return '' if len(runs) < 2 else '<p class="note">' + ' &emsp; '.join(
        f'{_swatch(colors[run])}{html.escape(run)}' for run in runs) + '</p>'


def _curves_tag(curves: Mapping[str, Mapping[str, Sequence[Curve]]], colors: Mapping[str, str]) -> str:
    missing = run_colors(dict.fromkeys(run for lines in curves.values() for run in lines))
    return figure_svg(draw_curves(curves, {**missing, **colors}), 'training curves')


def _confusion_tag(each: Confusion, headed: bool) -> str:
    figure = figure_svg(draw_confusion(each.counts, each.classes), f'confusion matrix {each.title}')
    return (f'<h3>{html.escape(each.title)}</h3>' if headed else '') + figure


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
        f'<figure class="{frames[p.hit]}">{image_tag(array_webp(p.image), p.caption)}'
        f'<figcaption>{html.escape(p.caption)}</figcaption></figure>' for p in row.results)
    return f'<div class="row"><div class="query">{html.escape(row.query)}</div>{figures}</div>'
