"""HTML page of an inspection: statistics, problems and sample objects."""
from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.inspection.result import COLUMNS, Inspection
from clipgs_plugin.triplets.inspection.strips import AMPLIFIED, Strip
from clipgs_plugin.triplets.samples import MEASURES
from clipgs_plugin.visualization.html_page import array_png, figure_png, image_tag, page, table_tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 200  # maximum number of problems, failures and shards on the page; the JSON has all
STYLE = """
body { max-width: 1500px } .strip { flex: 1; min-width: 0; width: auto }
.strip img { width: 100%; border: 1px solid #ddd }
.query { width: 250px; font-size: 13px } .query b { font-size: 14px } .query ul { margin: .3em 0; padding-left: 1.2em }
.bad { color: #b02020 } .good { color: #2a7a3a } code { font-size: 12px }
"""
LEGEND = ('Each image shows the stored view (left), the stored Gaussians from its camera (middle) and their absolute '
          f'difference times {AMPLIFIED} (right), which saturates at a difference of {-(-255 // AMPLIFIED)} of 255. '
          'The number below is the PSNR of this view. The fit used these views; held-out views are not stored.')


def write_page(inspection: Inspection, path: str | Path) -> None:
    """Write an inspection as one HTML file that needs no other."""
    write_whole(Path(path), [render_page(inspection).encode()])


def render_page(inspection: Inspection) -> str:
    """Render an inspection as an HTML page."""
    found = inspection
    parts = [_verdict(found), *_facts(found), *_problems(found)]
    measured = [name for name in (*MEASURES, 'bytes') if name in found.statistics()]
    if measured:
        parts += ['<h2>Distributions</h2>', image_tag(figure_png(_draw_histograms(found, measured)), 'histograms')]
    worst = f'Lowest PSNR on held-out views, of the foreground if measured. {LEGEND}'
    parts += _section('Worst objects', worst, found.worst, 'No sound object has a measured quality.')
    parts += _section('Random objects', LEGEND, found.random, 'No other sound object.')
    if found.failed:
        rows = [(error, f'{count:,}', message) for (error, message), count in found.failed.most_common(SHOWN)]
        parts += [f'<h2>Objects that could not be generated: {sum(found.failed.values()):,}</h2>',
                  *_first(SHOWN, len(found.failed), 'reasons'),
                  table_tag(('Error', 'Objects', 'Reason'), rows, words=True)]
    rows = [(f'{shard.shard:05d}.tar', f'{shard.objects:,}', f'{shard.bytes:,}', shard.sha256)
            for shard in found.shards[:SHOWN]]
    parts += ['<h2>Shards</h2>', '<p class="note">sha256 of all shards (sha256sum *.tar | sha256sum): '
              f'<code>{found.sha256}</code></p>', *_first(SHOWN, len(found.shards), 'shards'),
              table_tag(('File', 'Objects', 'Bytes', 'sha256'), rows)]
    return page(f'Triplets in {found.root.resolve().name}', parts, STYLE)


def number(value: float) -> str:
    """Format a number with few digits."""
    return f'{value:,.0f}' if value >= 1000 or value == int(value) else f'{value:.4g}'


def _verdict(found: Inspection) -> str:
    if found.problems:
        count = len(found.problems)
        return f'<p class="bad"><b>{count:,} problem{"s" * (count != 1)} found.</b></p>'
    return '<p class="good"><b>No problems found.</b></p>'


def _facts(found: Inspection) -> list[str]:
    """Describe the contents of the dataset in sentences and a table."""
    settings = found.settings
    lines = [f'Objects: {found.objects:,}. Shards: {len(found.shards):,}, '
             f'{sum(shard.bytes for shard in found.shards) / 1e6:,.1f} MB, made by '
             f'{settings["generator"].get("name", "an unnamed generator")}.',
             f'Splits: {_count_words(found.splits)}.']
    categories = Counter({name: count for name, count in found.categories.items() if name is not None})
    if categories:
        lines.append(f'{len(categories):,} categories: {_count_words(categories)}.')
    lines.append(f'Gaussians: {settings["dtype"]}, SH degree {settings["sh_degree"]}; {settings["frame"]}.')
    lines += [f'Features of {teacher}: {count:,} of {len(found.shards):,} shards.'
              for teacher, count in found.features.items()]
    rows = [(COLUMNS[name][0], f'{row["measured"]:,}', number(row['median']), number(row['worst']))
            for name, row in found.statistics().items()]
    return [*(f'<p>{html.escape(line)}</p>' for line in lines),
            table_tag(('Per object', 'Measured', 'Median', 'Worst'), rows)]


def _count_words(counter: Counter, most: int = 12) -> str:
    words = [f'{name} {count:,}' for name, count in counter.most_common(most)]
    return (', '.join(words) or 'none') + (f' and {len(counter) - most:,} more' if len(counter) > most else '')


def _first(shown: int, count: int, noun: str) -> list[str]:
    return [f'<p class="note">The first {shown} of {count:,} {noun}.</p>'] * (count > shown)


def _problems(found: Inspection) -> list[str]:
    if not found.problems:
        return []
    rows = [('' if problem.shard is None else f'{problem.shard:05d}', problem.uid or '', problem.reason)
            for problem in found.problems[:SHOWN]]
    return ['<h2>Problems</h2>', *_first(SHOWN, len(found.problems), 'problems'),
            table_tag(('Shard', 'Object', 'Reason'), rows, words=True)]


def _section(heading: str, note: str, strips: Sequence[Strip], none: str) -> list[str]:
    return [f'<h2>{heading}</h2>', f'<p class="note">{note if strips else none}</p>', *map(_strip, strips)]


def _strip(strip: Strip) -> str:
    """Show an object's facts and captions beside its images."""
    record = strip.record
    quality = ', '.join(f'{COLUMNS[name][0]} {record["quality"][name]:.4g}' for name in MEASURES
                        if name in record['quality'])
    source = record['source']
    facts = [record['category'] or 'no category', record['split'], f'{record["num_gaussians"]:,} Gaussians',
             quality and f'held-out views: {quality}', str(source.get('file', '')), str(source.get('made', ''))]
    captions = ''.join(f'<li>{html.escape(caption["text"])} <span class="note">'
                       f'({html.escape(str(caption.get("source") or "unknown source"))})</span></li>'
                       for caption in record['captions'])
    words = '<br>'.join(html.escape(fact) for fact in facts if fact)
    figures = []
    for i, view in enumerate(strip.numbers):
        caption = f'view {view}' + (f': {strip.psnr()[i]:.1f} dB' if strip.splats is not None else '')
        image = image_tag(array_png(strip_image(strip, i)), caption)
        figures.append(f'<figure class="strip">{image}<figcaption>{caption}</figcaption></figure>')
    note = '' if strip.splats is not None else '<p class="note">The dataset does not store its cameras as matrices.</p>'
    return (f'<div class="row"><div class="query"><b>{html.escape(strip.uid)}</b><br>{words}<ul>{captions}</ul>{note}'
            f'</div>{"".join(figures)}</div>')


def strip_image(strip: Strip, i: int) -> np.ndarray:
    """Join view ``i``, its render and their difference, (H, 3 W, 3) uint8; without a render, return the view alone."""
    if strip.splats is None:
        return strip.views[i]
    return np.concatenate([strip.views[i], strip.splats[i], strip.difference()[i]], axis=1)


def _draw_histograms(found: Inspection, names: Sequence[str]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    figure = Figure(figsize=(2.9 * len(names), 2.4), layout='constrained')
    for i, name in enumerate(names, 1):
        values = found.columns[name]
        values = values[np.isfinite(values)] / (1000 if name == 'bytes' else 1)
        axes = figure.add_subplot(1, len(names), i)
        axes.hist(values, bins=30)
        axes.set_title('kB stored' if name == 'bytes' else COLUMNS[name][0], fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.supylabel('objects', fontsize=8)
    return figure
