"""Pages of many objects in a browser: frames while the grid scrolls and the map zooms, start, size."""
from __future__ import annotations

import contextlib
import dataclasses
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import normalize

from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex
from clipgs_plugin.tools.benchmarks.inputs import surface_gaussians

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from clipgs_plugin.app.catalog import Catalog
    from clipgs_plugin.app.thumbnails import Thumbnails

WIDTH, KINDS, DRAWN, TOKEN = 64, 12, 48, 'benchmark'
SIZE = dict(width=1280, height=800)  # of the window, in pixels
# Begins to note the frames. The callback of the first one is registered before those of the page, so what follows it
# up to its message is the page's own callbacks, style, layout and paint.
WATCH = """() => {
  const frames = window.frames_ = {times: [], work: [], on: true}, channel = new MessageChannel();
  let began = 0;
  channel.port1.onmessage = () => frames.work.push(performance.now() - began);
  const tick = now => {
    if (!frames.on) return;
    requestAnimationFrame(tick);
    frames.times.push(now);
    began = performance.now();
    channel.port2.postMessage(null);
  };
  requestAnimationFrame(tick);
}"""
READ = '() => { window.frames_.on = false; return window.frames_; }'
LOADED = """() => {
  const stills = [...document.querySelectorAll('.cell:not([hidden]) .window img:first-child')];
  return stills.length > 0 && stills.every(each => each.complete && each.naturalWidth);
}"""


@dataclasses.dataclass
class Spread:
    """A row of a table: a quantity of one page over frames or repeats."""

    page: str
    what: str
    unit: str
    median: float
    most: float   # 95th percentile
    worst: float
    count: int


def page(rows: int = 10_000, steps: int = 150, starts: int = 3, folder: str = '') -> list[Spread]:
    """Measure both pages of synthetic objects in headless Chromium: start, size, and frames.

    The objects have made thumbnails of the usual size. A start ends with the first screen of thumbnails. The wheel
    then scrolls the grid from its top, and zooms into the map and out again, --steps times each. Main thread is the
    wall time of the page's callbacks, style, layout and paint in a frame. --folder keeps the pages.
    """
    if find_spec('playwright') is None:
        raise ImportError('the benchmark of pages needs playwright, of the extra dev; pip install playwright')
    from playwright.sync_api import sync_playwright
    executable = find_chromium()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        root = Path(folder or temporary)
        catalog, thumbnails = make_objects(root, rows)
        browser = playwright.chromium.launch(executable_path=executable, args=['--no-sandbox', '--disable-gpu'])
        try:
            return [*of_gallery(browser, root / 'gallery', catalog, thumbnails, steps, starts),
                    *of_served(browser, root, catalog, thumbnails, steps, starts)]
        finally:
            browser.close()


def find_chromium() -> str:
    """Return the path of a Chromium of the system.

    Raises:
        FileNotFoundError: There is none.
    """
    found = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if found is None:
        raise FileNotFoundError('no Chromium is installed, in which the pages are measured; install the package '
                                'chromium of your system')
    return found


def make_objects(root: Path, rows: int) -> tuple[Catalog, Thumbnails]:
    """Write an index, its files of one Gaussian each, and thumbnails of a few clouds in turn."""
    from clipgs_plugin.app.catalog import Catalog
    from clipgs_plugin.app.thumbnails import Thumbnails

    files = root / 'files'
    files.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((KINDS, WIDTH))
    vectors = torch.from_numpy(centers[np.arange(rows) % KINDS] + rng.standard_normal((rows, WIDTH))).float()
    with IndexWriter(root / 'index', IndexCard('synthetic', WIDTH)) as writer:
        for i, vector in enumerate(normalize(vectors, dim=1)):
            path = files / f'{i:06d}.splat'
            path.write_bytes(bytes(32))
            writer.add(path, vector, category=f'kind {i % KINDS}', gaussians=i + 1, up='y', up_confidence=1.)
    catalog = Catalog(SearchIndex.load(root / 'index'))
    thumbnails = Thumbnails(root / 'thumbnails', catalog.objects)
    write_thumbnails(thumbnails, rows)
    return catalog, thumbnails


def write_thumbnails(thumbnails: Thumbnails, rows: int) -> None:
    """Draw tori of several colours, and write them as the thumbnails of all objects in turn."""
    from clipgs_plugin.app.thumbnails import pictures, still_of
    torus, drawn = surface_gaussians(2000), []
    colors = torch.rand(min(DRAWN, rows), 3, generator=torch.Generator().manual_seed(0))
    for color in colors:
        torus.sh[:] = 0.2 * torus.sh + 2.5 * (color - 0.5)
        drawn.append(pictures(torus))
    for row in range(rows):
        path = thumbnails.path(row)
        path.parent.mkdir(exist_ok=True)
        still, views = drawn[row % len(drawn)]
        still_of(path).write_bytes(still)
        path.write_bytes(views)


def of_gallery(browser: Browser, out: Path, catalog: Catalog, thumbnails: Thumbnails, steps: int,
               starts: int) -> list[Spread]:
    """Measure a gallery, opened from disk."""
    from clipgs_plugin.app.gallery import GallerySettings, write_gallery
    began = time.perf_counter()
    page = write_gallery(catalog, thumbnails, np.arange(len(catalog)), out, GallerySettings('benchmark', 'category'),
                         2, lambda row, error: None)
    seconds = time.perf_counter() - began
    data = sum(path.stat().st_size for path in out.iterdir() if path.is_file()) / 1e6
    size = sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6
    return [spread('gallery', 'written, thumbnails drawn', 's', [seconds]),
            spread('gallery', 'page without thumbnails', 'MB', [data]),
            spread('gallery', 'whole folder', 'MB', [size]),
            *in_browser(browser, 'gallery', page.as_uri(), steps, starts)]


def of_served(browser: Browser, root: Path, catalog: Catalog, thumbnails: Thumbnails, steps: int,
              starts: int) -> list[Spread]:
    """Measure the page that a server of this process serves."""
    from clipgs_plugin.app.site import Site
    from clipgs_plugin.app.tags import TagFile
    from clipgs_plugin.tools.serve import IndexEmbedder
    site = Site(catalog, thumbnails, TagFile(root / 'tags.json'), IndexEmbedder(catalog.index.card, 'cpu', False))
    with served(site) as address:
        return in_browser(browser, 'served', f'{address}/?token={TOKEN}', steps, starts)


@contextlib.contextmanager
def served(site) -> Iterator[str]:
    """Serve a site within the context; its address."""
    import uvicorn

    from clipgs_plugin.app.server import make_app
    from clipgs_plugin.app.site import Sites
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        port = listening.getsockname()[1]
        app = make_app(Sites(lambda: site, lambda: ''), port, TOKEN)
        server = uvicorn.Server(uvicorn.Config(app, log_level='error'))
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listening]))
        thread.start()
        try:
            yield f'http://127.0.0.1:{port}'
        finally:
            server.should_exit = True
            thread.join()


def in_browser(browser: Browser, name: str, address: str, steps: int, starts: int) -> list[Spread]:
    """Open a page some times; scroll its grid and zoom its map in the last."""
    seconds = []
    for i in range(starts):
        context = browser.new_context(viewport=SIZE)  # with an empty cache
        tab = context.new_page()
        began = time.perf_counter()
        tab.goto(address)
        tab.wait_for_function(LOADED, timeout=120_000)
        seconds.append(time.perf_counter() - began)
        if i < starts - 1:
            context.close()
    elements = tab.evaluate('() => document.querySelectorAll("*").length')
    found = [spread(name, 'start', 's', seconds), *scroll(tab, name, steps)]
    elements = max(elements, tab.evaluate('() => document.querySelectorAll("*").length'))
    found += [spread(name, 'elements', '', [elements]), *walk(tab, name, steps)]
    context.close()
    return found


def scroll(tab: Page, name: str, steps: int) -> list[Spread]:
    """Turn the wheel over the grid."""
    tab.mouse.move(900, 500)
    cpu = watch(tab)
    for _ in range(steps):
        tab.mouse.wheel(0, 250)
    return frames(tab, name, 'scrolling', cpu)


def walk(tab: Page, name: str, steps: int) -> list[Spread]:
    """Turn the wheel over the map, nearer and away again, and move the pointer between."""
    tab.click('#as-map')
    tab.locator('#map canvas').wait_for()
    tab.wait_for_function('() => !document.getElementById("message").textContent.endsWith("\\u2026")', timeout=120_000)
    cpu = watch(tab)
    for i in range(steps):
        tab.mouse.move(700 + i % 7, 400)
        tab.mouse.wheel(0, -60 if i < steps // 2 else 60)
    return frames(tab, name, 'map', cpu)


def watch(tab: Page) -> Callable[[], float]:
    """Begin to note frames; return a function that measures the CPU seconds of the main thread since then."""
    devtools = tab.context.new_cdp_session(tab)
    devtools.send('Performance.enable', {'timeDomain': 'threadTicks'})

    def cpu() -> float:
        metrics = devtools.send('Performance.getMetrics')['metrics']
        return next(each['value'] for each in metrics if each['name'] == 'TaskDuration')
    before = cpu()
    tab.evaluate(WATCH)
    return lambda: cpu() - before


def frames(tab: Page, name: str, what: str, cpu: Callable[[], float]) -> list[Spread]:
    """Summarise the frames since they were watched."""
    found = tab.evaluate(READ)
    return [spread(name, f'{what}: between frames', 'ms', np.diff(found['times'])),
            spread(name, f'{what}: main thread a frame', 'ms', found['work']),
            spread(name, f'{what}: CPU of it a frame, mean', 'ms', [1e3 * cpu() / len(found['times'])])]


def spread(name: str, what: str, unit: str, values: Sequence[float] | np.ndarray) -> Spread:
    """Summarise values."""
    values = np.asarray(values, np.float64)
    median, most = np.percentile(values, [50, 95])
    return Spread(name, what, unit, float(median), float(most), float(values.max()), len(values))


def table_of(rows: list[Spread]):
    """Lay out rows as a table of rich."""
    from rich.table import Table

    table = Table('page', 'what', 'unit')
    for title in ('median', '95 %', 'worst', 'of'):
        table.add_column(title, justify='right')
    for i, row in enumerate(rows):
        if i and row.page != rows[i - 1].page:
            table.add_section()
        several = row.count > 1
        table.add_row(row.page, row.what, row.unit, f'{row.median:.4g}', f'{row.most:.4g}' if several else '',
                      f'{row.worst:.4g}' if several else '', str(row.count))
    return table
