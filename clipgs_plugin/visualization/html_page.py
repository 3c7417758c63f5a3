"""Parts of an HTML page that needs no other file."""
from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1e242b; --muted: #5c6773; --line: #dde2e8; --soft: #f4f6f8;
  --accent: #2f6fc4; --good: #2e8f4e }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --fg: #e3e7ec; --muted: #9aa5b1; --line: #333a43;
  --soft: #1d2127; --accent: #6ea8f0; --good: #4fb873 } }
body { font: 15px/1.5 system-ui, sans-serif; background: var(--bg); color: var(--fg); max-width: 1080px;
  margin: 2em auto; padding: 0 1em }
a { color: var(--accent) }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em; border-bottom: 1px solid var(--line) }
h3 { font-size: 1em; margin: 1.2em 0 .4em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .3em .9em; border-bottom: 1px solid var(--line); text-align: right }
td:first-child, th:first-child, .words td, .words th { text-align: left } .words td { overflow-wrap: anywhere }
table:not(.words) td:not(:first-child) { white-space: nowrap }
.wide { overflow-x: auto }
.note { color: var(--muted) } img, svg { max-width: 100%; height: auto }
.row { display: flex; gap: 10px; align-items: flex-start; margin: .6em 0; overflow-x: auto }
.query { width: 190px; flex: none; overflow-wrap: anywhere }
figure { margin: 0; width: 128px; flex: none; font-size: 12px; line-height: 1.3; overflow-wrap: anywhere }
figure img { width: 122px; border: 3px solid var(--line); border-radius: 4px; display: block }
figure.hit img { border-color: var(--good) }
"""


def page(title: str, parts: Sequence[str], style: str = '') -> str:
    """Assemble a page.

    Args:
        title: Title and heading, plain text.
        parts: Contents, HTML.
        style: CSS to add to the default style.
    """
    title = html.escape(title)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<style>{STYLE}{style}</style></head><body><h1>{title}</h1>{"".join(parts)}</body></html>')


def table_tag(columns: Sequence[str], rows: Sequence[Sequence[str]], words: bool = False) -> str:
    """Format a table of plain-text cells.

    Args:
        columns: Heading of each column.
        rows: Cells of each row.
        words: Align all columns left, as text; False aligns all but the first right, as numbers.
    """
    head = ''.join(f'<th>{html.escape(c)}</th>' for c in columns)
    body = ''.join('<tr>' + ''.join(f'<td>{html.escape(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<div class="wide"><table{" class=words" * words}><tr>{head}</tr>{body}</table></div>'


def image_tag(image: bytes, description: str) -> str:
    """Embed a PNG or WebP image in HTML."""
    kind = 'webp' if image.startswith(b'RIFF') else 'png'
    return (f'<img alt="{html.escape(description)}" '
            f'src="data:image/{kind};base64,{base64.b64encode(image).decode()}">')


def array_png(image: np.ndarray) -> bytes:
    """Encode an image, (H, W, 3) uint8, as PNG."""
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def array_webp(image: np.ndarray, quality: int = 85) -> bytes:
    """Encode an image, (H, W, 3) uint8, as lossy WebP, a fifth of the size of a PNG."""
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'WEBP', quality=quality)
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """Render a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, bbox_inches='tight')
    return buffer.getvalue()
