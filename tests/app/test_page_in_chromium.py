"""Both pages in a real browser: typed, clicked, and never taken over by a name."""
import io
import json
import os
import shutil
import socket
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('fastapi')
uvicorn = pytest.importorskip('uvicorn')
sync_api = pytest.importorskip('playwright.sync_api')
from page_site import HOSTILE, TOKEN, app_of, blob, make_index, make_site, nearest, vectors  # noqa: E402

from clipgs_plugin import write_gaussians  # noqa: E402
from clipgs_plugin.app.gallery import GallerySettings, write_gallery  # noqa: E402
from clipgs_plugin.app.site import stamp_of  # noqa: E402
from clipgs_plugin.app.viewer import viewer_page  # noqa: E402

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
NAMES = [*(f'chair/{i}.ply' for i in range(6)), *HOSTILE]


@pytest.fixture(scope='module')
def browser():
    if CHROMIUM is None:
        pytest.skip('no Chromium is installed')
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=[
            '--no-sandbox', '--disable-gpu', '--enable-unsafe-swiftshader'])  # the last one for WebGL
        yield found
        found.close()


@pytest.fixture
def tab(browser):
    """A tab that keeps what went wrong, and what was asked of the network."""
    tab = browser.new_context(viewport=dict(width=1000, height=700), accept_downloads=True).new_page()
    tab.wrong, tab.asked = [], []
    tab.on('pageerror', lambda error: tab.wrong.append(str(error)))
    tab.on('console', lambda line: tab.wrong.append(line.text) if line.type == 'error' else None)
    tab.on('dialog', lambda dialog: (tab.wrong.append('a name opened a dialog'), dialog.dismiss()))
    tab.on('request', lambda request: tab.asked.append(request.url))
    yield tab
    tab.context.close()


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path, make_index(tmp_path, NAMES, category=['chair'] * 6 + ['<b>odd</b>'] * 6))


@pytest.fixture
def address(site, tmp_path, monkeypatch):
    """Serve the site; return its address."""
    monkeypatch.setattr('clipgs_plugin.app.server.has_viewer', lambda: False)  # WebGL without a GPU takes long
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        port = listening.getsockname()[1]
        app = app_of(site, port, lambda: stamp_of(tmp_path / 'index'))
        server = uvicorn.Server(uvicorn.Config(app, log_level='error'))
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listening]))
        thread.start()
        yield f'http://127.0.0.1:{port}'
        server.should_exit = True
        thread.join(10)


def names(tab):
    """Titles of the visible cells, in their order on the page."""
    return tab.evaluate("""() => [...document.querySelectorAll('.cell:not([hidden])')]
        .map(each => [new DOMMatrix(getComputedStyle(each).transform), each.title])
        .sort((a, b) => a[0].m42 - b[0].m42 || a[0].m41 - b[0].m41).map(each => each[1])""")


def assert_shown(tab, expected):
    """Wait until the first cells have these titles; they are drawn a moment after the answer."""
    expected = [shown(name) for name in expected]
    for _ in range(100):
        if names(tab)[:len(expected)] == expected:
            break
        tab.wait_for_timeout(50)
    assert names(tab)[:len(expected)] == expected


def shown(name):
    return name.replace('\n', '\ufffd').replace('\u202e', '\ufffd')


def cell(tab, name):
    return tab.locator(f'.cell:not([hidden])[title="{shown(name)}"]')


def says(tab, text):
    tab.locator('#message', has_text=text).wait_for()


def test_the_served_page_searches_filters_tags_and_exports(tab, site, address, tmp_path):
    tab.goto(f'{address}/?token={TOKEN}')
    says(tab, '12 objects')
    cell(tab, HOSTILE[0]).wait_for()
    assert tab.url == f'{address}/'  # the token stays neither in the address nor in the history
    assert_shown(tab, NAMES)

    tab.fill('#text', 'row 2')
    tab.press('#text', 'Enter')
    says(tab, 'nearest to: row 2')
    cell(tab, NAMES[2]).wait_for()
    assert_shown(tab, [NAMES[row] for row in nearest(site.catalog.index, vectors(12)[2])])
    tab.fill('#text', '<img src=x onerror=alert(1)>')
    tab.press('#text', 'Enter')
    says(tab, 'the CLIP model is not here')

    strip = cell(tab, NAMES[2]).locator('.strip')
    box = cell(tab, NAMES[2]).locator('.window').bounding_box()
    for step in range(40):  # the strip is loaded when the pointer comes, and shown when it moves
        tab.mouse.move(box['x'] + (0.55 + 0.001 * (step % 2)) * box['width'], box['y'] + 20)
        if strip.is_visible():
            break
        tab.wait_for_timeout(50)
    assert strip.evaluate('image => image.style.transform') == 'translateX(-50%)'
    assert strip.evaluate('image => [image.naturalWidth, image.naturalHeight]') == [12 * 128, 128]
    tab.mouse.move(2, 2)
    assert not strip.is_visible()

    tab.locator('.facets button', has_text='<b>odd</b>').click()
    says(tab, 'the CLIP model')  # the text stays and still cannot be embedded
    tab.click('#reset')
    says(tab, '12 objects')
    tab.locator('.facets button', has_text='<b>odd</b>').click()
    says(tab, '6 objects')
    assert_shown(tab, HOSTILE)
    assert len(names(tab)) == 6

    for i in (0, 3):
        cell(tab, HOSTILE[i]).locator('input').check()
    tab.fill('#tag', '<script>alert(1)</script>')
    tab.click('#tag-on')
    says(tab, 'tagged 2 objects')
    with tab.expect_download() as started:
        tab.click('[data-kind=json]')
    paths = [each['path'] for each in json.loads(started.value.path().read_text())]
    assert paths == [site.catalog.objects.paths[row] for row in (6, 9)]
    assert site.tags.read() == {'<script>alert(1)</script>': paths}
    tab.fill('#folder', 'mine')
    tab.click('#copy')
    says(tab, 'copied 2 files')
    assert len(list((tmp_path / 'exports' / 'mine').iterdir())) == 2
    tab.click('#choose-none')
    tab.locator('#tags button', has_text='<script>').click()
    says(tab, '2 objects')

    cell(tab, HOSTILE[0]).click()
    tab.locator('dialog h2', has_text=HOSTILE[0]).wait_for()
    assert tab.evaluate('document.activeElement.tagName') == 'DIALOG'
    tab.locator('dialog button[aria-label=next]').focus()
    for key, name in (('Enter', HOSTILE[3]), ('ArrowLeft', HOSTILE[0])):
        tab.keyboard.press(key)  # the focus stays in the dialog
        tab.locator('dialog h2', has_text=shown(name)).wait_for()
    tab.locator('dialog button', has_text='more like this').click()
    says(tab, f'2 of 2 objects nearest to: like {HOSTILE[0]}')
    tab.click('#reset')
    write_gaussians(site.catalog.objects.cloud(4), tmp_path / 'query.ply')
    tab.set_input_files('#splat', tmp_path / 'query.ply')
    says(tab, 'the upload query.ply')
    cell(tab, NAMES[4]).wait_for()
    assert_shown(tab, NAMES[4:5])
    tab.click('#as-map')
    tab.locator('#map canvas').wait_for()

    tab.click('#as-grid')
    assert not tab.locator('#old').is_visible()
    os.utime(tmp_path / 'index' / 'index.json', ns=(0, 0))
    tab.click('#reset')
    tab.click('#reload')
    says(tab, '12 objects')
    assert not tab.locator('#old').is_visible()

    assert all(url.startswith((address, 'data:', 'blob:')) for url in tab.asked)
    assert [line for line in tab.wrong if '404' not in line] == []  # the missing CLIP model
    assert tab.locator('main b, main script, aside b, aside script, dialog b').count() == 0


def test_the_gallery_opens_from_disk(tab, site, tmp_path):
    page = write_gallery(site.catalog, site.thumbnails, np.arange(12), tmp_path / 'gallery',
                         GallerySettings('</title><script>alert(1)</script>', 'category', 3), 2, lambda *done: None)
    tab.goto(page.as_uri())
    cell(tab, HOSTILE[0]).wait_for()
    headings = tab.locator('.heading').all_text_contents()
    assert headings == ['<b>odd</b> (6)', 'chair (6)']
    tab.fill('#text', 'CHAIR')
    assert tab.locator('#message').text_content() == '6 of 12 objects'
    tab.fill('#text', '')
    cell(tab, NAMES[3]).click()
    tab.locator('dialog button', has_text='more like this').click()
    assert_shown(tab, [NAMES[row] for row in nearest(site.catalog.index, vectors(12)[3])[:3]])
    tab.click('#as-map')
    tab.locator('#map canvas').wait_for()
    for _ in range(40):
        with Image.open(io.BytesIO(tab.locator('#map canvas').screenshot())) as image:
            colors = len(image.getcolors(1 << 20))
        if colors > 150:
            break
        tab.wait_for_timeout(50)
    assert colors > 150  # pictures of twelve greys, which dots would not have
    assert tab.wrong == [] and all(url.startswith(('file:', 'data:')) for url in tab.asked)


def test_the_viewer_draws_the_splat_itself(tab, tmp_path):
    pytest.importorskip('viser')
    page = tmp_path / 'viewer.html'
    page.write_text(viewer_page(blob(0.2, 400)))
    tab.goto(page.as_uri())
    for _ in range(300):
        with Image.open(io.BytesIO(tab.screenshot())) as image:
            inner, outer = image.getpixel((500, 350))[:3], image.getpixel((20, 600))[:3]
        if max(inner) < 100:
            break
        tab.wait_for_timeout(200)
    assert max(inner) < 100 and min(outer) > 200  # a dark ball before a white ground
    assert all(url.startswith(('file:', 'data:', 'blob:')) for url in tab.asked)
