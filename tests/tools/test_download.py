"""Downloads by the programs: from an empty cache to an answer offline, questions on a terminal, errors in one line."""
import io
import subprocess
import sys

import pytest
import torch
from loopback_hub import LoopbackHub, publish_small_uni3d

from clipgs_plugin import load_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints import open_point_cloud_checkpoint
from clipgs_plugin.models.checkpoints.catalogue import find_file
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import _downloads, _program, download


@pytest.fixture
def hub(tmp_path, monkeypatch):
    publish_small_uni3d(tmp_path / 'served', load_catalogue('checkpoints'), monkeypatch)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('CLIPGS_CHECKPOINTS', raising=False)
    monkeypatch.setenv('HF_HUB_DISABLE_PROGRESS_BARS', '1')
    with LoopbackHub(tmp_path / 'served') as hub:
        hub.use(monkeypatch, tmp_path / 'home')
        yield hub


class Terminal(io.StringIO):
    """Text stream that passes for a terminal."""

    def isatty(self):
        return True


def test_a_newcomer_downloads_a_model_and_uses_it_offline(hub, capsys, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'run `python tools/download\.py uni3d-ti`'):
        load_point_cloud_checkpoint('uni3d-ti')
    assert download.main(['uni3d-ti']) == 0
    out, err = capsys.readouterr()
    path = find_file('uni3d-ti')
    assert out == f'uni3d-ti: {path} ({path.stat().st_size / 1e6:.1f} MB)\n'
    assert err.startswith('Downloading uni3d-ti (modelzoo/uni3d-ti/model.pt of BAAI/Uni3D, licence MIT (code))\n')
    assert 'does not have the SHA-256 of uni3d-ti' in err and 'later downloads are held to it' in err

    hub.close()
    model, report, contract = load_point_cloud_checkpoint('uni3d-ti')
    points = torch.rand(1, 600, 3)
    assert model(points, points).embedding.shape == (1, 24) and report.complete and contract.embed_dim == 24
    assert path.with_name('model.pt.safetensors').is_file()
    assert open_point_cloud_checkpoint('uni3d-ti').state['logit_scale'] == 4.25
    assert download.main(['uni3d-ti']) == 0
    assert capsys.readouterr().err.startswith('Checking uni3d-ti')


def test_nothing_is_downloaded_if_one_name_is_wrong(hub):
    with pytest.raises(FileNotFoundError, match='point-mae: its file does not lie on the Hugging Face Hub'):
        download.main(['uni3d-ti', 'point-mae'])
    assert not hub.requests


@pytest.mark.parametrize('answer', ['y\n', 'n\n', ''])
def test_a_terminal_is_asked_with_size_and_licence(hub, monkeypatch, tmp_path, answer):
    monkeypatch.setattr(sys, 'stdin', Terminal(answer))
    monkeypatch.setattr(sys, 'stderr', Terminal())
    size = (tmp_path / 'served/BAAI/Uni3D/modelzoo/uni3d-ti/model.pt').stat().st_size
    if answer == 'y\n':
        _downloads.provide_weights('uni3d-ti', False)
        assert find_file('uni3d-ti').stat().st_size == size
    else:
        with pytest.raises(FileNotFoundError, match='uni3d-ti'):
            _downloads.provide_weights('uni3d-ti', False)
        assert not hub.contents
    assert f'({size / 1e6:.1f} MB, licence MIT (code))? [y/N] ' in sys.stderr.getvalue()


def test_without_a_terminal_only_the_option_downloads(hub, capsys):
    with pytest.raises(FileNotFoundError, match=r'tools/download\.py uni3d-ti'):
        _downloads.provide_weights('uni3d-ti', False)
    assert not hub.requests
    _downloads.provide_weights('clipgs_toy', True)
    assert not hub.requests
    _downloads.provide_weights('uni3d-ti', True)
    assert find_file('uni3d-ti').is_file()
    asked = len(hub.requests)
    _downloads.provide_weights('uni3d-ti', True)
    assert len(hub.requests) == asked


@pytest.mark.parametrize('fault', ['altered', 'portal', 'closed', 'offline'])
def test_failures_end_with_one_line_and_status_1(hub, capsys, monkeypatch, fault):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', fault == 'offline')
    hub.close() if fault == 'closed' else setattr(hub, fault, True)
    with pytest.raises(SystemExit) as exit_:
        _program.run(lambda: download.main(['uni3d-ti']))
    *_, line = capsys.readouterr().err.splitlines()
    expected = dict(altered='so it was removed', portal='does not answer as a hub', closed='check the network',
                    offline='HF_HUB_OFFLINE is set and the file is not in the cache; unset it')[fault]
    assert exit_.value.code == 1 and line.startswith('error: uni3d-ti: ') and expected in line


def test_a_proxy_of_the_environment_is_used(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://hub.invalid')  # only the proxy knows this name
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE',
                        'http://hub.invalid/{repo_id}/resolve/{revision}/{filename}')
    for name in ('HTTP_PROXY', 'http_proxy'):
        monkeypatch.setenv(name, hub.url)
    close_session()  # its client read the environment when it was made
    try:
        assert download.main(['uni3d-ti']) == 0
    finally:
        close_session()
    assert hub.proxied and all(url.startswith(('http://hub.invalid/', hub.content_url)) for url in hub.proxied)
    assert len(hub.contents) == 1 and find_file('uni3d-ti').is_file()


@pytest.mark.parametrize('disabled', [True, False])
def test_files_in_xet_storage_come_over_http_or_fail_in_one_sentence(hub, monkeypatch, disabled):
    from huggingface_hub import constants
    hub.xet = True
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', disabled)
    if disabled:
        assert download.main(['uni3d-ti']) == 0 and len(hub.contents) == 1
        return
    pytest.importorskip('hf_xet')
    with pytest.raises(ConnectionError, match=r'uni3d-ti: .* in Xet storage .*; set HF_HUB_DISABLE_XET=1, or download'):
        download.main(['uni3d-ti'])
    assert not hub.contents


def test_the_program_takes_hub_and_cache_from_the_environment(hub, root, tmp_path):
    found = subprocess.run([sys.executable, root / 'tools' / 'download.py', 'uni3d-ti'], capture_output=True, text=True,
                           env=hub.environment(tmp_path / 'other') | {'PYTHONPATH': str(root)})
    assert found.returncode == 0 and f'uni3d-ti: {tmp_path}/other/hub/models--BAAI--Uni3D/snapshots/' in found.stdout
    assert len(hub.contents) == 1
