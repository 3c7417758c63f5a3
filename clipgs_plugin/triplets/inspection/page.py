"""What an inspection found, as one HTML page: numbers, problems, and objects to look at."""
from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipgs_plugin.io.files import write_whole
from clipgs_plugin.triplets.inspection.checks import COLUMNS, MEASURED, Inspection
from clipgs_plugin.triplets.inspection.pictures import AMPLIFIED, Strip
from clipgs_plugin.visualization.report import array_png, figure_png, image_tag, page, table_tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 200             # problems, reasons and shards; the JSON has all
STYLE = """
body { max-width: 1500px } .strip { flex: 1; min-width: 0; width: auto }
.strip img { width: 100%; border: 1px solid #ddd }
.query { width: 250px; font-size: 13px } .query b { font-size: 14px } .query ul { margin: .3em 0; padding-left: 1.2em }
.bad { color: #b02020 } .good { color: #2a7a3a } code { font-size: 12px }
"""
LEGEND = ('In each picture: left the stored view, in the middle the stored Gaussians from its camera, right their '
          f'absolute difference times {AMPLIFIED}: black where they are equal, full where a channel is off by '
          f'{-(-255 // AMPLIFIED)} of 255 or more; under it the PSNR of that view. A fit has seen these views; those '
          'that were held out are not stored.')


def write_page(inspection: Inspection, path: str | Path) -> None:
    """Write what was found as one HTML file that needs no other."""
    write_whole(Path(path), [render_page(inspection).encode()])


def render_page(inspection: Inspection) -> str:
    """The page of an inspection."""
    found = inspection
    parts = [_verdict(found), *_facts(found), *_problems(found)]
    measured = [name for name in (*MEASURED, 'bytes') if name in found.statistics()]
    if measured:
        parts += ['<h2>Distributions</h2>', image_tag(figure_png(_draw_histograms(found, measured)), 'histograms')]
    worst = f'The least PSNR on held-out views, of the foreground where that was measured. {LEGEND}'
    parts += _shown('Worst objects', worst, found.worst,
                    'No object that can be shown has a quality that was measured.')
    parts += _shown('Random objects', LEGEND, found.random, 'No other object can be shown.')
    if found.failed:
        rows = [(error, f'{count:,}', message) for (error, message), count in found.failed.most_common(SHOWN)]
        parts += [f'<h2>Objects that could not be made: {sum(found.failed.values()):,}</h2>',
                  *_first(SHOWN, len(found.failed), 'reasons'),
                  table_tag(('Error', 'Objects', 'Reason'), rows, words=True)]
    rows = [(f'{shard.shard:05d}.tar', f'{shard.objects:,}', f'{shard.bytes:,}', shard.sha256)
            for shard in found.shards[:SHOWN]]
    parts += ['<h2>Shards</h2>', '<p class="note">sha256 of all of them (sha256sum *.tar | sha256sum): '
              f'<code>{found.sha256}</code></p>', *_first(SHOWN, len(found.shards), 'shards'),
              table_tag(('File', 'Objects', 'Bytes', 'sha256'), rows)]
    return page(f'Triplets in {found.root.resolve().name}', parts, STYLE)


def number(value: float) -> str:
    """A number in few digits."""
    return f'{value:,.0f}' if value >= 1000 or value == int(value) else f'{value:.4g}'


def _verdict(found: Inspection) -> str:
    if found.problems:
        count = len(found.problems)
        return f'<p class="bad"><b>{count:,} problem{"s were" if count != 1 else " was"} found.</b></p>'
    return '<p class="good"><b>No problem was found.</b></p>'


def _facts(found: Inspection) -> list[str]:
    """What the set holds, in sentences and a table."""
    settings = found.settings
    lines = [f'Objects: {found.objects:,}. Shards: {len(found.shards):,}, '
             f'{sum(shard.bytes for shard in found.shards) / 1e6:,.1f} MB, made by '
             f'{settings["generator"].get("name", "an unnamed generator")}.',
             f'Splits: {_counted(found.splits)}.']
    categories = Counter({name: count for name, count in found.categories.items() if name is not None})
    if categories:
        lines.append(f'{len(categories):,} categories: {_counted(categories)}.')
    lines.append(f'Gaussians: {settings["dtype"]}, SH degree {settings["sh_degree"]}; {settings["frame"]}.')
    lines += [f'Features of {teacher}: {count:,} of {len(found.shards):,} shards.'
              for teacher, count in found.features.items()]
    rows = [(COLUMNS[name][0], f'{row["measured"]:,}', number(row['median']), number(row['worst']))
            for name, row in found.statistics().items()]
    return [*(f'<p>{html.escape(line)}</p>' for line in lines),
            table_tag(('Of an object', 'Measured', 'Median', 'Worst'), rows)]


def _counted(counter: Counter, most: int = 12) -> str:
    words = [f'{name} {count:,}' for name, count in counter.most_common(most)]
    return (', '.join(words) or 'none') + (f' and {len(counter) - most:,} more' if len(counter) > most else '')


def _first(shown: int, count: int, what: str) -> list[str]:
    return [f'<p class="note">The first {shown} of {count:,} {what}.</p>'] * (count > shown)


def _problems(found: Inspection) -> list[str]:
    if not found.problems:
        return []
    rows = [('' if problem.shard is None else f'{problem.shard:05d}', problem.uid or '', problem.reason)
            for problem in found.problems[:SHOWN]]
    return ['<h2>Problems</h2>', *_first(SHOWN, len(found.problems), 'problems'),
            table_tag(('Shard', 'Object', 'Reason'), rows, words=True)]


def _shown(heading: str, note: str, strips: Sequence[Strip], none: str) -> list[str]:
    return [f'<h2>{heading}</h2>', f'<p class="note">{note if strips else none}</p>', *map(_strip, strips)]


def _strip(strip: Strip) -> str:
    """An object's words beside its pictures."""
    record = strip.record
    quality = ', '.join(f'{COLUMNS[name][0]} {record["quality"][name]:.4g}' for name in MEASURED
                        if name in record['quality'])
    source = record['source']
    facts = [record['category'] or 'no category', record['split'], f'{record["num_gaussians"]:,} Gaussians',
             quality and f'held out: {quality}', str(source.get('file', '')), str(source.get('made', ''))]
    captions = ''.join(f'<li>{html.escape(caption["text"])} <span class="note">'
                       f'({html.escape(str(caption.get("source") or "source not said"))})</span></li>'
                       for caption in record['captions'])
    words = '<br>'.join(html.escape(fact) for fact in facts if fact)
    figures = []
    for i, view in enumerate(strip.numbers):
        caption = f'view {view}' + (f': {strip.psnr()[i]:.1f} dB' if strip.splats is not None else '')
        picture = image_tag(array_png(strip_picture(strip, i)), caption)
        figures.append(f'<figure class="strip">{picture}<figcaption>{caption}</figcaption></figure>')
    note = '' if strip.splats is not None else '<p class="note">The set does not hold its cameras as matrices.</p>'
    return (f'<div class="row"><div class="query"><b>{html.escape(strip.uid)}</b><br>{words}<ul>{captions}</ul>{note}'
            f'</div>{"".join(figures)}</div>')


def strip_picture(strip: Strip, i: int) -> np.ndarray:
    """View ``i`` of a strip, its Gaussians and the difference, side by side, (H, 3 W, 3) uint8, or the view alone."""
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
