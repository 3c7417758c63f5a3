"""Map of embeddings on a page: points coloured by class, with the name and a picture of each under the pointer."""
from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from clipgs_plugin.visualization.charts import class_colors

SIZE = 480          # pixels of a map, and units of its SVG
TILE, COLUMNS = 48, 50  # pixels of a picture of the sheet, and pictures of a row
LEAST = 8           # vectors that UMAP lays out, which needs neighbours of each
_STAR = 'M0-6 1.4-1.9 5.7-1.9 2.3.7 3.5 4.9 0 2.4-3.5 4.9-2.3.7-5.7-1.9-1.4-1.9Z'

STYLE = f"""
.maps {{ display: flex; flex-wrap: wrap; gap: 16px }}
.map figcaption {{ font-size: 13px; color: var(--muted) }}
.map {{ width: {SIZE}px; max-width: 100%; flex: 0 1 auto }}
.map svg {{ background: var(--soft); border-radius: 6px; display: block }}
.map circle {{ fill-opacity: .85 }} .map .star {{ stroke: var(--fg); stroke-width: 1.2; stroke-linejoin: round }}
.map circle:hover, .map .star:hover {{ stroke: var(--fg); stroke-width: 2 }}
.embedding .other {{ opacity: .08 }} .bare .star {{ display: none }}
.legend {{ display: flex; flex-wrap: wrap; gap: 2px 10px; font-size: 12px; max-height: 11em; overflow-y: auto;
  margin: .6em 0 }}
.legend button {{ all: unset; cursor: pointer }} .legend button:focus-visible {{ outline: 1px solid var(--accent) }}
.legend button[aria-pressed=true] {{ font-weight: 700; text-decoration: underline }}
.dot {{ display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .35em }}
#hover {{ position: fixed; pointer-events: none; display: none; background: var(--bg); color: var(--fg);
  border: 1px solid var(--line); border-radius: 6px; padding: 6px 8px; font-size: 12px; max-width: 240px; z-index: 9;
  box-shadow: 0 2px 10px #0004; overflow-wrap: anywhere }}
#hover i {{ display: block; width: {2 * TILE}px; height: {2 * TILE}px; margin-bottom: 4px; border-radius: 4px }}
"""
# The titles work without the script; with it, the names and pictures appear at once.
SCRIPT = """
(() => {
  const hover = document.createElement('div'); hover.id = 'hover'; document.body.append(hover);
  for (const part of document.querySelectorAll('.embedding')) {
    const sheet = part.dataset.sheet, marks = part.querySelectorAll('[data-c]');
    for (const mark of marks) {
      const title = mark.querySelector('title'); mark.dataset.name = title.textContent; title.remove();
    }
    let chosen = '';
    const show = c => { for (const m of marks) m.classList.toggle('other', c !== '' && m.dataset.c !== c); };
    for (const button of part.querySelectorAll('.legend button')) {
      button.onmouseenter = () => show(button.dataset.of);
      button.onmouseleave = () => show(chosen);
      button.onclick = () => {
        chosen = chosen === button.dataset.of ? '' : button.dataset.of;
        for (const b of part.querySelectorAll('.legend button'))
          b.setAttribute('aria-pressed', b.dataset.of === chosen);
        show(chosen);
      };
    }
    const stars = part.querySelector('input');
    if (stars) stars.onchange = () => part.classList.toggle('bare', !stars.checked);
    part.onpointermove = event => {
      const mark = event.target.closest('[data-c]');
      if (!mark) { hover.style.display = 'none'; return; }
      hover.textContent = mark.dataset.name;
      if (sheet && mark.dataset.i !== undefined) {
        const picture = document.createElement('i'), i = +mark.dataset.i;
        picture.className = sheet;
        picture.style.backgroundPosition = `-${i % COLUMNS * SIDE}px -${Math.floor(i / COLUMNS) * SIDE}px`;
        hover.prepend(picture);
      }
      hover.style.display = 'block';
      const box = hover.getBoundingClientRect();
      hover.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + 'px';
      hover.style.top = Math.min(event.clientY + 14, innerHeight - box.height - 8) + 'px';
    };
    part.onpointerleave = () => { hover.style.display = 'none'; };
  }
})();
""".replace('COLUMNS', str(COLUMNS)).replace('SIDE', str(2 * TILE))


@dataclass(frozen=True)
class EmbeddingMap:
    """Objects on a plane, with their classes and pictures, and class prompts as stars."""

    title: str
    places: Mapping[str, np.ndarray]            # by method, (N, 2)
    labels: Sequence[int]                       # (N,), -1 without a class
    names: Sequence[str]                        # (N,)
    classes: Sequence[str]                      # (C,)
    stars: Mapping[str, np.ndarray] = field(default_factory=dict)  # by method, (C, 2)
    pictures: Sequence[np.ndarray] = ()         # N or none, (H, W, 3) uint8
    note: str = ''


def project(vectors: np.ndarray, method: str = 'pca', others: np.ndarray | None = None,
            ) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Lay vectors out on a plane.

    The axes of ``'pca'`` are those of ``vectors`` alone. Other vectors are centred on their own mean, since texts and
    objects lie apart in the space of CLIP. ``'umap'`` needs umap-learn and lays out both together; fewer than
    ``LEAST`` vectors are laid out by PCA.

    Args:
        vectors: Unit vectors, (N, E).
        method: ``'pca'`` or ``'umap'``.
        others: Further unit vectors, (M, E).

    Returns:
        Places (N, 2) and (M, 2), and a description.

    Raises:
        ImportError: umap-learn is not installed.
        ValueError: The method is unknown.
    """
    if method not in ('pca', 'umap'):
        raise ValueError(f"method={method!r}: expected 'pca' or 'umap'")
    centred = vectors - vectors.mean(0)
    moved = None if others is None else others - others.mean(0)
    if method == 'umap':
        import umap
        if len(vectors) >= LEAST:
            stacked = centred if moved is None else np.concatenate([centred, moved])
            found = umap.UMAP(n_neighbors=min(15, len(stacked) - 1), metric='cosine', random_state=0, n_jobs=1
                              ).fit_transform(stacked)
            return found[:len(vectors)], None if moved is None else found[len(vectors):], 'UMAP, cosine, 15 neighbours'
    _, sizes, axes = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    axes = np.concatenate([axes, np.zeros_like(axes)])[:2]
    axes *= np.where(axes[range(2), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]  # the sign of an axis is arbitrary
    share = 100 * (sizes[:2] ** 2).sum() / max((sizes ** 2).sum(), 1e-30)
    return centred @ axes.T, None if moved is None else moved @ axes.T, f'PCA, {share:.0f} % of the variance'


def has_umap() -> bool:
    """Check whether umap-learn is installed."""
    from importlib.util import find_spec
    return find_spec('umap') is not None


def map_section(maps: Sequence[EmbeddingMap]) -> tuple[str, str]:
    """Render maps; return their HTML, and the CSS of their sheets of pictures, each of which is stored once."""
    parts, sheets = [], []
    for each in maps:
        number = next((i for i, known in enumerate(sheets) if known is each.pictures), None)
        if number is None and each.pictures:
            number = len(sheets)
            sheets.append(each.pictures)
        parts.append(_map(each, '' if number is None else f'sheet{number}'))
    width = 2 * TILE * COLUMNS
    style = ''.join(f'#hover .sheet{i} {{ background: url(data:image/webp;base64,{_sheet(sheet)}) 0 0 / {width}px '
                    'auto }' for i, sheet in enumerate(sheets))
    return ''.join(parts) + f'<script>{SCRIPT}</script>', STYLE + style


def _sheet(pictures: Sequence[np.ndarray]) -> str:
    from PIL import Image
    sheet = Image.new('RGB', (TILE * COLUMNS, TILE * -(-len(pictures) // COLUMNS)), 'white')
    for i, picture in enumerate(pictures):
        small = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS)
        sheet.paste(small, (TILE * (i % COLUMNS), TILE * (i // COLUMNS)))
    buffer = io.BytesIO()
    sheet.save(buffer, 'WEBP', quality=60)
    return base64.b64encode(buffer.getvalue()).decode()


def _map(each: EmbeddingMap, sheet: str) -> str:
    colors = class_colors(len(each.classes))
    charts = ''.join(f'<figure class="map">{_chart(each, method, colors)}<figcaption>{html.escape(method)}</figcaption>'
                     '</figure>' for method in each.places)
    legend = ''.join(f'<button data-of="{i}" aria-pressed="false"><span class="dot" style="background:{color}"></span>'
                     f'{html.escape(name)}</button>' for i, (name, color) in enumerate(zip(each.classes, colors)))
    stars = '<label><input type="checkbox" checked> class prompts (stars)</label>' if each.stars else ''
    return (f'<div class="embedding" data-sheet={json.dumps(sheet)}><h3>{html.escape(each.title)}</h3>'
            f'<p class="note">{html.escape(each.note)} {stars}</p><div class="maps">{charts}</div>'
            f'<div class="legend">{legend}</div></div>')


def _chart(each: EmbeddingMap, method: str, colors: Sequence[str]) -> str:
    """Draw one layout as SVG; stars beyond the objects widen it."""
    places, stars = each.places[method], each.stars.get(method)
    shown = places if stars is None else np.concatenate([places, stars])
    low, high = shown.min(0), shown.max(0)
    scale = (SIZE - 32) / max(float((high - low).max()), 1e-12)

    def place(point: np.ndarray) -> tuple[str, str]:
        x, y = (point - (low + high) / 2) * scale * (1, -1) + SIZE / 2
        return f'{x:.1f}', f'{y:.1f}'

    radius = 4 if len(places) < 400 else 3
    marks = []
    for i, (point, label, name) in enumerate(zip(places, each.labels, each.names)):
        x, y = place(point)
        known = 0 <= label < len(colors)
        marks.append(f'<circle data-c="{label}" data-i="{i}" cx="{x}" cy="{y}" r="{radius}" '
                     f'fill="{colors[label] if known else "#888"}"><title>{html.escape(name)}</title></circle>')
    for i, point in enumerate(() if stars is None else stars):
        x, y = place(point)
        marks.append(f'<path class="star" data-c="{i}" d="{_STAR}" transform="translate({x} {y}) scale(1.15)" '
                     f'fill="{colors[i]}"><title>prompt: {html.escape(each.classes[i])}</title></path>')
    return (f'<svg viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="map of embeddings">{"".join(marks)}</svg>')
