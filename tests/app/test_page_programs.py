"""The programs that serve and write pages, as a user calls them."""
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from page_site import WIDTH, blob, make_index, vectors

from clipgs_plugin import write_gaussians
from clipgs_plugin.app.thumbnails import Thumbnails
from clipgs_plugin.search import IndexCard, IndexWriter
from clipgs_plugin.tools import _page, gallery, serve

NAMES = [f'{kind}{i}.ply' for kind in ('mug', 'car') for i in range(3)]


@pytest.fixture
def folder(tmp_path):
    make_index(tmp_path, NAMES, category=['mug'] * 3 + ['car'] * 3)
    return tmp_path


def test_a_gallery_is_written_and_what_cannot_be_drawn_is_named(folder, capsys):
    pytest.importorskip('viser')
    (folder / 'splats' / 'mug1.ply').write_bytes(b'ply\n')
    arguments = [str(folder / 'index'), '-o', str(folder / 'out'), '--splats', '--title', 'mugs']
    assert gallery.main([*arguments, '--where', 'category=mug', '--clusters', '1']) == 1
    told = capsys.readouterr()
    assert told.out == f'{folder}/out/index.html\n' and '1 of 3 objects could not be drawn' in told.err
    assert 'mug1.ply' in told.err
    data = json.loads((folder / 'out' / 'data.js').read_text().removeprefix('window.GALLERY = ').removesuffix(';\n'))
    assert (data['title'], data['names'], data['groupings'][0]['values']) == ('mugs', NAMES[:3], ['mug', 'without'])
    assert {path.name for path in (folder / 'out' / 'viewers').iterdir()} == {'0.html', '2.html'}
    assert gallery.main([*arguments[:3], '--where', 'category=car']) == 0
    assert not (folder / 'out' / 'viewers').exists()
    assert {path.name for path in (folder / 'index.page').iterdir()} == {'thumbnails'}


def test_the_server_prints_its_address_and_ends_by_ctrl_c_while_it_draws(tmp_path, root):
    pytest.importorskip('uvicorn')
    make_index(tmp_path, [f'{i}.ply' for i in range(300)])
    command = [sys.executable, str(root / 'tools' / 'serve.py'), str(tmp_path / 'index'), '--port', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = line.split()[5]
        assert line.startswith(f'300 objects of {tmp_path}/index at http://127.0.0.1:') and '?token=' in address
        with urllib.request.urlopen(address, timeout=20) as page:
            assert b'served.js' in page.read()
        with pytest.raises(urllib.error.HTTPError, match='401'):
            urllib.request.urlopen(address.partition('?')[0], timeout=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        errors = process.stderr.read()
        assert 'interrupted' in errors.splitlines() and 'Traceback' not in errors
        assert 'are drawn' not in errors


def test_damaged_tags_end_the_server_by_name(folder):
    pytest.importorskip('uvicorn')
    (folder / 'index.page').mkdir()
    (folder / 'index.page' / 'tags.json').write_text('{')
    with pytest.raises(ValueError, match=f'{folder}/index.page/tags.json'):
        serve.main([str(folder / 'index'), '--port', '0'])


def test_a_port_in_use_is_named_after_a_note_on_a_large_index_without_codes(folder, monkeypatch, capsys):
    monkeypatch.setattr('clipgs_plugin.search.approximate.LARGE', 1)
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        with pytest.raises(OSError, match=f'port {other.getsockname()[1]} of this machine cannot be used'):
            serve.main([str(folder / 'index'), '--port', str(other.getsockname()[1])])
    assert f'make it fast with tools/search.py {folder / "index"} --build-approximate' in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_replaced_by_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    assert _page.page_folders(tmp_path / 'index', None) == (tmp_path / 'index.page', None)
    assert capsys.readouterr().err == '' and list(tmp_path.iterdir()) == []
    own, former = folders = _page.page_folders(Path('/proc/index'), None)  # not even root writes there
    assert own.is_relative_to(tmp_path / 'cache') and former is None
    assert capsys.readouterr().err == (f'note: /proc/index.page cannot be written; thumbnails and tags are kept in '
                                       f'{own}, or where --page says\n')
    assert _page.page_folders(Path('/proc/index'), tmp_path / 'mine') == (tmp_path / 'mine', None)
    (tmp_path / 'tags.json').write_text('{}')
    assert _page.tag_file(folders._replace(former=tmp_path)).read_text() == '{}'
    (tmp_path / 'tags.json').write_text('changed')
    assert _page.tag_file(folders._replace(former=tmp_path)).read_text() == '{}'


def test_all_missing_packages_are_named_at_once(monkeypatch):
    monkeypatch.setattr(_page, 'find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r'needs fastapi and uvicorn and viser, .* pip install fastapi uvicorn viser'):
        _page.require('fastapi', 'uvicorn')
    monkeypatch.setattr(_page, 'find_spec', lambda name: None if name == 'viser' else name)
    _page.require('fastapi', 'uvicorn')
    with pytest.raises(ImportError, match='needs viser, of'):
        _page.require('viser')


def test_objects_are_shown_as_they_were_embedded(tmp_path):
    cloud = blob(0.5)
    write_gaussians(cloud, tmp_path / 'a.ply')
    card = IndexCard('toy', WIDTH, options=('--up=z', '--turns=2', '--crop=-9.0,-9.0,0.0,9.0,9.0,9.0'))
    for name, options in (('cropped', card.options), ('whole', card.options[:2])):
        with IndexWriter(tmp_path / name, replace(card, options=options)) as writer:
            writer.add(tmp_path / 'a.ply', vectors(1)[0], gaussians=40, up='z', up_confidence=1.)
    cropped, whole = (_page.read_catalog(tmp_path / name).objects for name in ('cropped', 'whole'))
    above = cloud.means[:, 2] >= 0
    assert 0 < above.sum() < 40
    assert torch.allclose(cropped.cloud(0).means[:, 1], cloud.means[above, 2], atol=1e-6)
    assert torch.allclose(whole.cloud(0).means[:, 1], cloud.means[:, 2], atol=1e-6)
    places = [Thumbnails(tmp_path / 'page', objects).path(0) for objects in (cropped, whole)]
    assert places[0] != places[1]
