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


def page(title: str, parts: Sequence[str], style: str = '') -> str:
    """Assemble a page.

    Args:
        title: Title and heading, plain text.
        parts: Contents, HTML.
        style: CSS to add to the default style.
    """
    title = html.escape(title)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
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
    return f'<table{" class=words" * words}><tr>{head}</tr>{body}</table>'


def image_tag(png: bytes, description: str) -> str:
    """Embed a PNG image in HTML."""
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def array_png(image: np.ndarray) -> bytes:
    """Encode an image, (H, W, 3) uint8, as PNG."""
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def figure_png(figure: Figure) -> bytes:
    """Render a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110, bbox_inches='tight')
    return buffer.getvalue()
