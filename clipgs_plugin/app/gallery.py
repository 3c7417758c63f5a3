"""A page of an index that opens from disk: groups, a map to walk through, neighbours of every object."""
from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipgs_plugin.app.catalog import Catalog
from clipgs_plugin.app.clusters import cluster_names, spherical_kmeans, usual_count
from clipgs_plugin.app.static_files import DISK_POLICY, SHARED, page_text, static_text
from clipgs_plugin.app.thumbnails import Thumbnails, still_of
from clipgs_plugin.app.viewer import viewer_page
from clipgs_plugin.io.files import write_whole
from clipgs_plugin.visualization.embedding_map import has_umap, project

MOST = 50_000      # objects, whose names and places a browser keeps in memory
NEIGHBOURS = 18
_MARK = 'window.GALLERY = '
_BLOCK = 2048


@dataclass(frozen=True)
class GallerySettings:
    """Choices of a gallery.

    Args:
        title: Heading.
        group: Column of text to group by; None leaves clusters only.
        clusters: Number of clusters; None takes :func:`~clipgs_plugin.app.clusters.usual_count`.
        method: Layout of the map, ``'pca'`` or ``'umap'``.
        viewers: Write the splat itself of every object, about a megabyte each.
        seed: Seed of the clusters.
    """

    title: str
    group: str | None = None
    clusters: int | None = None
    method: str = 'pca'
    viewers: bool = False
    seed: int = 0


def check_folder(out: Path) -> None:
    """Refuse a folder that holds something else than a gallery.

    Raises:
        FileExistsError: It does.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    data = out / 'data.js'
    if not data.is_file() or not data.read_bytes()[:len(_MARK)] == _MARK.encode():
        raise FileExistsError(f'{out} exists and is not a gallery; name a new folder')


def write_gallery(catalog: Catalog, thumbnails: Thumbnails, rows: np.ndarray, out: Path, settings: GallerySettings,
                  workers: int, done: Callable[[int, Exception | None], None]) -> Path:
    """Write a gallery; one of an earlier run is replaced.

    Args:
        catalog: Rows of an index.
        thumbnails: Strips of its objects, drawn where they are missing.
        rows: Objects to show, (n,).
        out: Folder.
        settings: Choices.
        workers: Threads that draw thumbnails.
        done: Called after each object, with the error of one that cannot be drawn.

    Returns:
        Path of the page.

    Raises:
        ValueError: There are no objects or too many, or the column to group by is not one of text.
        FileExistsError: The folder holds something else.
    """
    if not 0 < len(rows) <= MOST:
        raise ValueError(f'{len(rows):,} objects, expected 1 to {MOST:,}; choose some with --where, or serve the index')
    check_folder(out)
    data = gallery_data(catalog, rows, settings)
    for folder in ('thumbnails', 'strips', 'viewers'):
        shutil.rmtree(out / folder, ignore_errors=True)
    for folder in ('thumbnails', 'strips', *(['viewers'] if settings.viewers else [])):
        (out / folder).mkdir(parents=True)
    number = {int(row): i for i, row in enumerate(rows)}

    def finished(row: int, error: Exception | None) -> None:
        if error is None:
            drawn = thumbnails.draw(row)
            shutil.copyfile(drawn, out / 'strips' / f'{number[row]}.webp')
            shutil.copyfile(still_of(drawn), out / 'thumbnails' / f'{number[row]}.webp')
            if settings.viewers:
                page = viewer_page(catalog.objects.cloud(row))
                write_whole(out / 'viewers' / f'{number[row]}.html', [page.encode()])
        done(row, error)
    thumbnails.draw_all(map(int, rows), workers, finished)
    for name in ('gallery.js', *SHARED):
        write_whole(out / name, [static_text(name).encode()])
    write_whole(out / 'data.js', [_MARK.encode(), json.dumps(data).encode(), b';\n'])
    page = page_text('gallery.html', ('data.js', 'gallery.js'), policy=DISK_POLICY)
    write_whole(out / 'index.html', [page.encode()])
    return out / 'index.html'


def gallery_data(catalog: Catalog, rows: np.ndarray, settings: GallerySettings) -> dict:
    """Return what the script of a gallery shows; objects are numbered in the order of ``rows``."""
    if settings.method == 'umap' and not has_umap():
        raise ImportError('a map by UMAP needs umap-learn, of the extra report; pip install umap-learn')
    vectors = catalog.index.vectors(rows).numpy()
    names = [catalog.objects.name(int(row)) for row in rows]
    records = [record for start in range(0, len(rows), _BLOCK)
               for record in catalog.details([int(row) for row in rows[start:start + _BLOCK]])]
    facts = [record['facts'] for record in records]
    labels, groupings = [None] * len(rows), []
    if settings.group is not None:
        labels = text_column(facts, settings.group, catalog.shown())
        values = sorted({label for label in labels if label is not None})
        groupings.append(_grouping(settings.group, labels, [*values, None]))
    clusters, centers = spherical_kmeans(vectors, min(settings.clusters or usual_count(len(rows)), len(rows)),
                                         settings.seed)
    titles = cluster_names(vectors, clusters, centers, labels, names)
    groupings.append(_grouping('cluster', [titles[i] for i in clusters], titles))
    places, _, note = project(vectors, settings.method)
    return dict(title=settings.title, model=catalog.index.model, names=names, facts=facts, groupings=groupings,
                map=dict(note=note, x=np.round(places[:, 0], 4).tolist(), y=np.round(places[:, 1], 4).tolist()),
                near=neighbours(vectors, min(NEIGHBOURS, len(rows) - 1)), viewers=settings.viewers)


def text_column(facts: Sequence[dict], name: str, known: Sequence[str]) -> list[str | None]:
    """Return the values of a column as text.

    Raises:
        ValueError: The index does not have the column.
    """
    if name not in known:
        raise ValueError(f'{name!r} is no column of the index; it has {", ".join(known)}')
    return [None if name not in each else str(each[name]) for each in facts]


def neighbours(vectors: np.ndarray, count: int) -> list[list[int]]:
    """Return the nearest others of each unit vector (n, E), best first."""
    found = []
    for start in range(0, len(vectors), _BLOCK):
        scores = vectors[start:start + _BLOCK] @ vectors.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        nearest = np.argpartition(-scores, max(count - 1, 0), axis=1)[:, :count]
        order = np.argsort(-np.take_along_axis(scores, nearest, 1), axis=1, kind='stable')
        found += np.take_along_axis(nearest, order, 1).tolist()
    return found


def _grouping(title: str, labels: Sequence[str | None], values: Sequence[str | None]) -> dict:
    place = {value: i for i, value in enumerate(values)}
    return dict(title=title, values=['without' if value is None else value for value in values],
                of=[place[label] for label in labels])
