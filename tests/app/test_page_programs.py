"""The programs that serve and write pages, as a user calls them."""
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from page_site import make_index

from clipgs_plugin.tools import gallery, serve

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


def test_the_server_prints_its_address_and_ends_by_ctrl_c(folder, root):
    pytest.importorskip('uvicorn')
    command = [sys.executable, str(root / 'tools' / 'serve.py'), str(folder / 'index'), '--port', '0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = line.split()[5]
        assert line.startswith(f'6 objects of {folder}/index at http://127.0.0.1:') and '?token=' in address
        with urllib.request.urlopen(address, timeout=20) as page:
            assert b'served.js' in page.read()
        with pytest.raises(urllib.error.HTTPError, match='401'):
            urllib.request.urlopen(address.partition('?')[0], timeout=20)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130 and 'interrupted' in process.stderr.read().splitlines()


def test_a_place_that_cannot_be_written_is_named_with_the_way_out(folder, permissions_hold):
    folder.chmod(0o555)
    for program in (serve, gallery):
        with pytest.raises(OSError, match=r'index\.page, the folder of thumbnails.*Permission denied.*--page FOLDER'):
            program.main([str(folder / 'index')])
    folder.chmod(0o755)


def test_a_port_in_use_is_named(folder):
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        with pytest.raises(OSError, match=f'port {other.getsockname()[1]} of this machine cannot be used'):
            serve.main([str(folder / 'index'), '--port', str(other.getsockname()[1])])
