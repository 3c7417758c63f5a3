"""Answers and refusals of the served page."""
import io
import json
import os
import re
import threading
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('fastapi')
pytest.importorskip('httpx')
import page_site
from fastapi.testclient import TestClient
from page_site import HOSTILE, PORT, TOKEN, app_of, make_index, make_site, nearest, vectors

from clipgs_plugin import write_gaussians
from clipgs_plugin.app import maps
from clipgs_plugin.app.guard import MAX_BODY
from clipgs_plugin.app.server import make_app
from clipgs_plugin.app.site import Sites, stamp_of
from clipgs_plugin.app.thumbnails import SIZE, VIEWS, Thumbnails
from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex
from clipgs_plugin.toy_world.writing import write_world
from clipgs_plugin.triplets import ShardReader

NAMES = [*(f'chair/{i}.ply' for i in range(6)), *HOSTILE]
HOST = f'http://127.0.0.1:{PORT}'


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    columns = dict(category=['chair'] * 6 + ['odd'] * 6, weight=[float(i) for i in range(12)])
    return folder, make_index(folder, NAMES, **columns)


@pytest.fixture
def site(shared, tmp_path):
    return make_site(tmp_path, shared[1])


@pytest.fixture
def client(site):
    with TestClient(app_of(site), base_url=HOST, headers={'X-CLIPGS': '1'}) as client:
        assert client.get(f'/?token={TOKEN}').status_code == 200
        yield client


def find(client, **body):
    answer = client.post('/api/find', json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_queries_rank_as_a_plain_loop_does(client, shared):
    index = shared[1]
    assert find(client) == dict(rows=list(range(12)), scores=None, total=12, changed=False)
    for body, row in ((dict(text='row 2'), 2), (dict(like=7), 7)):
        found = find(client, **body)
        assert found['rows'] == nearest(index, vectors(12)[row]) and found['scores'][0] == pytest.approx(1, abs=2e-3)
    assert find(client, like=7, limit=3)['rows'] == nearest(index, vectors(12)[7])[:3]
    odd = find(client, like=7, where=['category=odd', 'weight>7'])
    assert odd['rows'] == nearest(index, vectors(12)[7], range(8, 12)) and odd['total'] == 4
    assert find(client, where=['path~CHAIR/'])['rows'] == [0, 1, 2, 3, 4, 5]


def test_wrong_requests_are_answered_by_one_sentence(client):
    for body, status, reason in (
            (dict(text='row 1', like=2), 400, 'several queries'), (dict(text='else'), 404, 'CLIP model is not here'),
            (dict(like=12), 400, 'rows 0 to 11'), (dict(query='none'), 400, 'choose the file again'),
            (dict(where=['nothing=1']), 400, 'no column'), (dict(where=['??']), 400, 'no condition'),
            (dict(limit=0), 422, 'limit'), (dict(other=1), 422, 'other'), (dict(like=True), 422, 'like')):
        answer = client.post('/api/find', json=body)
        assert answer.status_code == status and reason in answer.json()['error']


def test_the_index_is_described(client):
    found = client.get('/api/index').json()
    columns = {column['name']: column for column in found['columns']}
    assert found['count'] == 12 and next(iter(columns)) == 'category'
    assert columns['category']['values'] == [['chair', 6], ['odd', 6]]
    assert columns['weight'] == dict(name='weight', kind='number', low=0, high=11)
    assert not {'path', 'mtime_ns', 'caption'} & set(columns)
    details, = client.post('/api/details', json=dict(rows=[6])).json()
    assert details['name'] == HOSTILE[0] and details['facts']['weight'] == 6 and details['tags'] == []


def test_uploads_become_queries(client, tmp_path):
    write_gaussians(page_site.blob(0.5), tmp_path / 'query.spz')
    answer = client.post('/api/query?kind=splat&name=../../query.spz', content=(tmp_path / 'query.spz').read_bytes())
    assert find(client, query=answer.json()['query'])['rows'][0] == 4
    picture = io.BytesIO()
    Image.new('RGB', (8, 8)).save(picture, 'PNG')
    answer = client.post('/api/query?kind=image&name=a', content=picture.getvalue())
    assert find(client, query=answer.json()['query'])['rows'][0] == 3
    for kind, name, reason in (('image', 'a.png', 'not an image'), ('splat', 'a.ply', 'the upload'),
                               ('splat', 'a.exe', 'no splat format')):
        answer = client.post(f'/api/query?kind={kind}&name={name}', content=b'ply\nnothing')
        assert answer.status_code == 400 and reason in answer.json()['error'] and 'clipgs-' not in answer.text


def test_thumbnails_are_drawn_once_and_anew_when_a_file_changes(client, site, tmp_path):
    answer = client.get('/strips/2.webp')
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (VIEWS * SIZE, SIZE) and image.mode == 'RGBA'
        pixels = np.asarray(image)
    middle = pixels[SIZE // 2, SIZE // 2::SIZE]  # of every view
    assert (middle[:, 3] > 150).all() and np.abs(middle[:, :3] - 255 * 2 / 12).max() < 12 and pixels[0, 0, 3] == 0
    with Image.open(io.BytesIO(client.get('/thumbnails/2.webp').content)) as image:
        assert image.size == (SIZE, SIZE)
        difference = np.asarray(image).astype(int)[..., 3] - pixels[:, :SIZE, 3]
    assert np.abs(difference).mean() < 3  # the first view, compressed apart
    path = site.thumbnails.path(2)
    before = path.stat().st_mtime_ns
    assert client.get('/strips/2.webp').content == answer.content and path.stat().st_mtime_ns == before
    file = site.catalog.objects.file(2)
    kept = file.stat()
    write_gaussians(page_site.blob(0.9), file)
    assert site.thumbnails.path(2) != path and client.get('/strips/2.webp').content != answer.content
    write_gaussians(page_site.blob(2 / 12), file)
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert site.thumbnails.path(2) == path


def test_all_thumbnails_are_drawn_and_bad_files_named(shared, tmp_path):
    (tmp_path / 'bad.ply').write_bytes(b'ply\n')
    index = SearchIndex(vectors(3), (shared[1].paths[0], str(tmp_path / 'bad.ply'), str(tmp_path / 'gone.ply')), 'toy')
    site, outcomes = make_site(tmp_path, index), {}
    site.thumbnails.draw_all(range(3), 2, lambda row, error: outcomes.__setitem__(row, error))
    assert outcomes[0] is None and 'bad.ply' in str(outcomes[1]) and 'does not exist' in str(outcomes[2])
    assert [path.suffix for path in (tmp_path / 'page').rglob('*.*')] == ['.webp'] * 2


def test_a_thumbnail_shows_the_up_axis_of_the_index(site):
    turned = site.catalog.objects.cloud(1).means
    assert torch.allclose(turned[:, 1], page_site.blob(1 / 12).means[:, 2], atol=1e-6)


def test_only_splats_of_the_index_are_given_out(shared, tmp_path):
    (tmp_path / 'secret.txt').write_text('secret')
    (tmp_path / 'link.ply').symlink_to(tmp_path / 'secret.txt')
    index = SearchIndex(vectors(3), (str(tmp_path / 'secret.txt'), str(tmp_path / 'link.ply'), shared[1].paths[6]),
                        'toy')
    app = app_of(make_site(tmp_path, index))
    with TestClient(app, base_url=HOST, cookies={f'clipgs_{PORT}': TOKEN}) as client:
        for address in ('/objects/0/file', '/objects/1/file', '/thumbnails/0.webp', '/strips/1.webp',
                        '/objects/1/viewer'):
            answer = client.get(address)
            assert answer.status_code == 400 and 'no splat format' in answer.json()['error']
        framed = client.get('/objects/1/viewer', headers={'Sec-Fetch-Dest': 'iframe'})
        assert framed.status_code == 400 and 'no splat format' in framed.text and framed.text[0] != '{'
        assert framed.headers['content-type'].startswith('text/plain')
        assert "frame-ancestors 'self'" in framed.headers['content-security-policy']
        answer = client.get('/objects/2/file')
        assert answer.content == (shared[0] / 'splats' / HOSTILE[0]).read_bytes()
        assert quote(HOSTILE[0], safe='') in answer.headers['content-disposition']
        assert client.get('/objects/3/file').status_code == client.get('/objects/-1/file').status_code == 404
        for address in ('/static/../server.py', '/static/%2e%2e%2fserver.py', '/static/server.py', '/etc/passwd'):
            assert client.get(address).status_code == 404


@pytest.mark.parametrize('headers, status', [
    ({'Host': 'evil.example'}, 421), ({'Host': f'evil.example:{PORT}'}, 421), ({'Host': '127.0.0.1'}, 421),
    ({'Origin': 'http://evil.example'}, 403), ({'Origin': 'null'}, 403), ({'Sec-Fetch-Site': 'cross-site'}, 403),
    ({'Sec-Fetch-Site': 'same-site'}, 403), ({'X-CLIPGS': ''}, 403), ({'Cookie': f'clipgs_{PORT}=guess'}, 401),
    ({'Cookie': ''}, 401)])
def test_requests_of_other_pages_and_users_are_refused(client, headers, status):
    asked = {'Cookie': f'clipgs_{PORT}={TOKEN}', **headers}
    client.cookies.clear()
    answer = client.post('/api/tags', json=dict(tag='a', rows=[0], on=True), headers=asked)
    assert answer.status_code == status and 'error' in answer.json()
    assert client.get('/api/index', headers={'Cookie': f'clipgs_{PORT}={TOKEN}'}).json()['tags'] == {}


def test_the_token_opens_the_page_alone(site):
    with TestClient(app_of(site), base_url=HOST) as client:
        for address in ('/', '/?token=guess', f'/api/index?token={TOKEN}', '/thumbnails/0.webp', '/static/page.css'):
            assert client.get(address).status_code == 401
        cookie = client.get(f'/?token={TOKEN}').headers['set-cookie']
        assert 'HttpOnly' in cookie and 'SameSite=Strict' in cookie
        assert client.get('/static/page.css').status_code == 200


def test_policies_forbid_foreign_scripts(client):
    page = client.get('/')
    policy = page.headers['content-security-policy']
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and 'unsafe' not in policy
    assert not re.search(r'<script>|style=|\son\w+=|https?://', page.text)


def test_large_bodies_are_refused(client):
    answer = client.post('/api/find', content=b'[' * (MAX_BODY + 1), headers={'Content-Type': 'application/json'})
    assert answer.status_code in (400, 413)
    assert client.post('/api/details', json=dict(rows=[0] * 501)).status_code == 422


def test_tags_are_stored_by_path_and_filter(client, site):
    assert client.post('/api/tags', json=dict(tag=' fine ', rows=[1, 6], on=True)).json() == dict(fine=2)
    assert client.post('/api/tags', json=dict(tag='fine', rows=[1], on=False)).json() == dict(fine=1)
    family = '\U0001f468\u200d\U0001f469\u200d\U0001f467'
    for on, there in ((True, True), (False, False)):
        assert (family in client.post('/api/tags', json=dict(tag=family, rows=[1], on=on)).json()) is there
    assert find(client, tag='fine')['rows'] == [6] and find(client, tag='fine', like=0)['rows'] == [6]
    assert client.post('/api/details', json=dict(rows=[6])).json()[0]['tags'] == ['fine']
    assert json.loads(site.tags.path.read_text())['tags'] == dict(fine=[site.catalog.objects.paths[6]])
    for tag in ('', ' ', 'a\nb', 'x' * 61):
        assert client.post('/api/tags', json=dict(tag=tag, rows=[1], on=True)).status_code == 400
    site.tags.path.write_text('{"format": 1, "tags": {"a": [1]}}')
    answer = client.get('/api/index')
    assert answer.status_code == 400 and 'tags.json' in answer.json()['error']


def test_selections_are_written_as_lists(client, site):
    paths = site.catalog.objects.paths
    answer = client.post('/api/list', json=dict(rows=[0, 6], kind='txt'))
    assert answer.text.splitlines() == [paths[0], paths[6]]
    found = client.post('/api/list', json=dict(rows=[9], kind='json')).json()
    assert found[0]['path'] == paths[9] and found[0]['weight'] == 9
    lines = client.post('/api/list', json=dict(rows=[0], kind='csv')).text.splitlines()
    assert lines[0].startswith('path,category,weight') and lines[1].startswith(f'{paths[0]},chair,0.0')
    answer = client.post('/api/list', json=dict(rows=[9], kind='txt'))
    assert answer.status_code == 400 and 'line break' in answer.json()['error']


def test_selections_are_copied_below_the_exports_only(client, site, shared, tmp_path):
    answer = client.post('/api/copy', json=dict(rows=[0, 9], folder='good ones'))
    folder = tmp_path / 'exports' / 'good ones'
    assert answer.json()['folder'] == str(folder) and {path.name for path in folder.iterdir()} == {'0.ply', HOSTILE[3]}
    assert (folder / '0.ply').read_bytes() == (shared[0] / 'splats' / NAMES[0]).read_bytes()
    for name in ('..', '../out', '/tmp/out', '.hidden', 'a/b', 'a\n', ''):
        assert client.post('/api/copy', json=dict(rows=[0], folder=name)).status_code == 400
    assert 'exists' in client.post('/api/copy', json=dict(rows=[0], folder='good ones')).json()['error']
    site.exports = None
    assert '--exports' in client.post('/api/copy', json=dict(rows=[0], folder='more')).json()['error']
    assert [path.name for path in (tmp_path / 'exports').iterdir()] == ['good ones']


def test_the_map_has_a_place_for_every_object(client, shared):
    found = client.get('/api/map').json()
    assert found['rows'] == list(range(12))
    stored = shared[1].vectors(np.arange(12)).numpy()
    _, _, axes = np.linalg.svd(stored - stored.mean(0), full_matrices=False)
    expected = (stored - stored.mean(0)) @ axes[:2].T
    assert np.allclose(np.abs(expected), np.abs(np.stack([found['x'], found['y']], 1)), atol=1e-3)


def test_the_viewer_holds_the_splat_and_is_alone(client, capfd):
    pytest.importorskip('viser')
    answer = client.get('/objects/1/viewer')
    policy = answer.headers['content-security-policy']
    assert answer.status_code == 200 and '__VISER_EMBED_DATA__' in answer.text
    assert policy.startswith('sandbox allow-scripts;') and "connect-src data: blob:" in policy
    assert 'allow-same-origin' not in policy and 'viser' not in capfd.readouterr().out


def test_a_large_cloud_is_drawn_by_its_largest(monkeypatch):
    from clipgs_plugin.app import viewer
    monkeypatch.setattr(viewer, 'MOST', 10)
    cloud = page_site.blob(0.5)
    cloud.log_scales[5:15] += 1
    assert torch.equal(viewer._largest(cloud).means, cloud.means[5:15])


def test_objects_of_a_triplet_dataset_are_drawn_from_its_shards(tmp_path):
    write_world(tmp_path / 'toys', 3, 1, 1, num_views=2, size=16, num_gaussians=64, workers=1)
    reader = ShardReader(tmp_path / 'toys')
    paths = [str(tmp_path / 'toys' / 'shards' / '00000.tar' / f'{uid}.gaussians.safetensors') for uid in reader.uids]
    site = make_site(tmp_path, SearchIndex(vectors(6), (*paths, paths[0].replace('toy-', 'no-')), 'toy'))
    assert torch.equal(site.catalog.objects.cloud(2).means, reader.read_gaussians(2).means)
    outcomes = {}
    site.thumbnails.draw_all(range(6), 2, lambda row, error: outcomes.__setitem__(row, error))
    assert [row for row, error in outcomes.items() if error] == [5]


def test_an_index_that_changed_is_read_again_when_a_page_is_opened(tmp_path):
    make_index(tmp_path, NAMES[:3])

    def write(*names):
        with IndexWriter(tmp_path / 'index', IndexCard('toy', 8)) as writer:
            writer.drop([str(tmp_path / 'splats' / NAMES[0])])
            for name in names:
                write_gaussians(page_site.blob(0.9), tmp_path / 'splats' / name)
                writer.add(tmp_path / 'splats' / name, vectors(5)[4], gaussians=40, up='y', up_confidence=1.)
    sites = Sites(lambda: make_site(tmp_path, SearchIndex.load(tmp_path / 'index')),
                  lambda: stamp_of(tmp_path / 'index'))
    with TestClient(make_app(sites, PORT, TOKEN), base_url=HOST, headers={'X-CLIPGS': '1'}) as client:
        assert client.get(f'/?token={TOKEN}').status_code == 200
        first = client.get('/api/index').json()
        old, address = sites.at(), f'/api/find?state={first["state"]}'
        assert client.post(address, json={}).json()['changed'] is False and first['count'] == 3
        write('new.ply', 'newer.ply')
        found = client.post(address, json={}).json()
        assert found['changed'] is True and found['total'] == 3  # the state of the page is still there
        second = client.get('/api/index').json()
        assert second['count'] == 4 and second['state'] != first['state']
        assert client.get('/api/index').json()['state'] == second['state']
        for answer in (client.post(address, json={}), client.get(f'/thumbnails/1.webp?state={first["state"]}')):
            assert answer.status_code == 409 and 'load the page again' in answer.json()['error']
        found = client.post(f'/api/find?state={second["state"]}', json={}).json()
        assert (found['total'], found['changed']) == (4, False) and sites.at() is not old
        assert client.post('/api/details', json=dict(rows=[2])).json()[0]['name'] == 'new.ply'


def test_layouts_by_umap_are_computed_aside_and_kept(client, site, monkeypatch):
    expected = np.random.default_rng(0).standard_normal((12, 2)).astype(np.float32)
    allowed, calls = threading.Event(), []

    def project(vectors, method='pca'):
        allowed.wait(20)
        calls.append(method)
        return expected, None, ''
    monkeypatch.setattr(maps, 'project', project)
    monkeypatch.setattr(maps, 'has_umap', lambda: True)
    monkeypatch.setattr(maps, 'PATIENCE', 0.05)
    monkeypatch.setattr(maps.multiprocessing, 'get_context', lambda kind: threading)
    monkeypatch.setattr(threading, 'Process', threading.Thread, raising=False)
    assert client.get('/api/map?method=umap').json() is None
    allowed.set()
    monkeypatch.setattr(maps, 'PATIENCE', 20)
    found = client.get('/api/map?method=umap').json()
    assert np.allclose(np.stack([found['x'], found['y']], 1), expected, atol=1e-4) and calls == ['umap']
    file, = site.maps.folder.glob('umap-*.npy')
    again = maps.Maps(site.catalog.index, site.maps.folder)
    assert np.array_equal(again.places('umap'), expected) and calls == ['umap']
    np.save(file, expected[:3])
    with pytest.raises(ValueError, match='expected finite float32'):
        maps.Maps(site.catalog.index, site.maps.folder).places('umap')
    file.unlink()
    monkeypatch.setattr(maps, 'write_umap', lambda vectors, path: None)
    with pytest.raises(ValueError, match='could not lay out'):
        maps.Maps(site.catalog.index, site.maps.folder).places('umap')


def test_thumbnails_of_a_folder_that_cannot_be_written_are_read(site, tmp_path):
    drawn = site.thumbnails.draw(3)
    other = Thumbnails(tmp_path / 'own', site.catalog.objects, site.thumbnails.folder)
    assert other.draw(3) == drawn and list(other.folder.iterdir()) == []
    assert other.draw(4).is_relative_to(other.folder)


@pytest.mark.parametrize('count', [0, 1, 2])
def test_an_index_of_few_objects_has_a_map_and_columns(tmp_path, count):
    make_index(tmp_path, NAMES[:count])
    with TestClient(app_of(make_site(tmp_path, SearchIndex.load(tmp_path / 'index'))), base_url=HOST,
                    cookies={f'clipgs_{PORT}': TOKEN}, headers={'X-CLIPGS': '1'}) as client:
        assert client.get('/api/index').json()['count'] == find(client)['total'] == count
        found = client.get('/api/map').json()
        assert found['rows'] == list(range(count)) and len(found['x']) == len(found['y']) == count
