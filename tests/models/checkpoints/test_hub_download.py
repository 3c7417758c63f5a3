"""Downloads of published files from a hub on the loopback: interruptions, wrong contents, no network, full disks."""
import errno
import hashlib
import json
import multiprocessing
import os

import pytest
from loopback_hub import COMMIT, LoopbackHub

from clipgs_plugin.models.checkpoints.catalogue import find_file
from clipgs_plugin.models.checkpoints.download import download
from clipgs_plugin.models.checkpoints.hub import HubFile, cached_file, hub_file, read_record
from clipgs_plugin.registry.catalogue import load_catalogue

CATALOGUE = load_catalogue('checkpoints')
CONTENT = b'PK\x03\x04' + bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for repo, file in (('BAAI/Uni3D', 'modelzoo/uni3d-b/model.pt'),
                       ('datasets/SFXX/ulip', CATALOGUE['ulip2-pointbert-xyz']['file'])):
        path = tmp_path / 'served' / repo / file
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv('CLIPGS_CHECKPOINTS', raising=False)
    monkeypatch.setenv('HF_HUB_DISABLE_PROGRESS_BARS', '1')
    with LoopbackHub(tmp_path / 'served') as hub:
        hub.use(monkeypatch, tmp_path / 'home')
        yield hub


@pytest.fixture
def no_waiting(monkeypatch):
    from huggingface_hub import file_download
    monkeypatch.setattr(file_download.time, 'sleep', lambda seconds: None)


def kept_files(folder):
    return [path for path in (folder / 'home').rglob('*') if path.is_file() and path.suffix not in ('.lock', '.TAG')
            and 'refs' not in path.parts]


def test_repositories_and_their_kinds_come_from_the_catalogue():
    assert hub_file('uni3d-b') == HubFile('uni3d-b', 'BAAI/Uni3D', 'model', 'modelzoo/uni3d-b/model.pt')
    ulip = hub_file('ulip2-pointbert-xyz')
    assert (ulip.repo, ulip.kind) == ('SFXX/ulip', 'dataset')
    assert hub_file('point-mae') is None and hub_file('gaussian-mae') is None


@pytest.mark.parametrize('name', ['uni3d-b', 'ulip2-pointbert-xyz'])
def test_a_file_is_downloaded_once_recorded_and_found_by_name(hub, name, monkeypatch):
    with pytest.raises(FileNotFoundError, match=rf'{name}: run `python tools/download.py {name}`, or download .* from'):
        find_file(name)
    assert not hub.requests
    path = find_file(name, download=True)
    assert path.read_bytes() == CONTENT and hub.contents == [None]
    assert vars(read_record(hub_file(name))) == dict(revision=COMMIT, sha256=SHA256)

    requests = len(hub.requests)
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    assert find_file(name) == find_file(name, download=True) == cached_file(hub_file(name)) == path
    assert download(name) == (path, SHA256, False) and len(hub.requests) == requests


def test_own_folders_come_before_the_cache(hub, tmp_path):
    cached = find_file('uni3d-b', download=True)
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / 'uni3d-b.pt').write_bytes(b'mine')
    assert find_file('uni3d-b').read_bytes() == b'mine' and find_file('uni3d-b') != cached


def test_a_file_that_another_program_has_downloaded_is_found(hub):
    from huggingface_hub import hf_hub_download
    path = hf_hub_download('BAAI/Uni3D', 'modelzoo/uni3d-b/model.pt')
    assert str(find_file('uni3d-b')) == path and download('uni3d-b').recorded


def test_a_cut_connection_is_resumed(hub, no_waiting, monkeypatch):
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'DOWNLOAD_CHUNK_SIZE', 1024)
    hub.cut = 1
    assert download('uni3d-b').path.read_bytes() == CONTENT
    assert hub.contents == [None, f'bytes={len(CONTENT) // 2 // 1024 * 1024}-']


def test_a_connection_that_is_always_cut_leaves_nothing(hub, no_waiting, tmp_path, monkeypatch):
    hub.cut = 10 ** 6
    monkeypatch.setattr('loopback_hub._Handler._content', lambda self, path: self._send(200, CONTENT[:100], {}, True))
    with pytest.raises(ConnectionError, match=r'uni3d-b: the download from http://127.* failed .*; check the network'):
        download('uni3d-b')
    assert kept_files(tmp_path) == []
    monkeypatch.undo()


@pytest.mark.parametrize('origin', ['the hub', 'the record', 'the catalogue'])
def test_a_file_of_another_content_is_not_kept(hub, tmp_path, monkeypatch, origin):
    if origin == 'the hub':
        hub.altered = True
    else:
        if origin == 'the record':
            file = hub_file('uni3d-b')
            file.record_path.parent.mkdir(parents=True)
            file.record_path.write_text(json.dumps(dict(revision=COMMIT, sha256='0' * 64)))
        else:
            monkeypatch.setitem(CATALOGUE, 'uni3d-b', {**CATALOGUE['uni3d-b'], 'sha256': '0' * 64})
    with pytest.raises(ValueError, match=rf'has SHA-256 \w+, but {origin} .*has \w+, so it was removed; download it'):
        download('uni3d-b')
    assert [path for path in kept_files(tmp_path) if path.suffix != '.json'] == []
    assert cached_file(hub_file('uni3d-b')) is None


def test_a_catalogue_hash_is_held_to_without_a_record(hub, monkeypatch):
    monkeypatch.setitem(CATALOGUE, 'uni3d-b', {**CATALOGUE['uni3d-b'], 'sha256': SHA256, 'revision': COMMIT})
    path, sha256, recorded = download('uni3d-b')
    assert (sha256, recorded) == (SHA256, False) and not hub_file('uni3d-b').record_path.exists()
    assert all('/main/' not in request[1] for request in hub.requests) and COMMIT in path.parts


@pytest.mark.parametrize('fault', ['portal', 'page_as_content'])
def test_a_web_page_in_place_of_the_file_is_not_kept(hub, no_waiting, tmp_path, fault):
    setattr(hub, fault, True)
    reason = 'does not answer as a hub' if fault == 'portal' else 'Consistency check failed'
    with pytest.raises(ConnectionError, match=rf'uni3d-b: .*{reason}.*save it as checkpoints/uni3d-b\.pt'):
        download('uni3d-b')
    assert kept_files(tmp_path) == []


def test_content_without_a_hash_has_to_look_like_a_checkpoint(hub, tmp_path, monkeypatch):
    monkeypatch.setattr('loopback_hub.hashlib.sha256', lambda _: type('', (), {'hexdigest': lambda self: 'abc'})())
    served = tmp_path / 'served' / 'BAAI/Uni3D/modelzoo/uni3d-b/model.pt'
    served.write_bytes(b'<html>' * 20)
    from clipgs_plugin.models.checkpoints import download as module
    monkeypatch.setattr(module, 'sha256_of', lambda file: SHA256)
    with pytest.raises(ValueError, match='is no checkpoint, perhaps a web page of a proxy, so it was removed'):
        download('uni3d-b')


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EACCES])
def test_errors_of_the_disk_name_the_cache(hub, tmp_path, monkeypatch, code):
    from huggingface_hub import file_download

    def write(url, file, **options):
        file.write(CONTENT[:100])
        raise OSError(code, os.strerror(code))
    monkeypatch.setattr(file_download, 'http_get', write)
    with pytest.raises(OSError, match=os.strerror(code)) as error:
        download('uni3d-b')
    assert error.value.errno == code and error.value.filename == str(tmp_path / 'home' / 'hub')
    assert kept_files(tmp_path) == []


def test_without_network_one_sentence_says_what_to_do(hub, monkeypatch):
    hub.close()
    with pytest.raises(ConnectionError, match=r'uni3d-b: the download from http://127.* failed \(.*refused\); check '
                                              r'the network .*HF_ENDPOINT .* download modelzoo/uni3d-b/model.pt from '
                                              r'https://huggingface.co/BAAI/Uni3D elsewhere'):
        download('uni3d-b')
    from huggingface_hub import constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(ConnectionError, match='uni3d-b: HF_HUB_OFFLINE is set and the file is not in the cache; unset'):
        download('uni3d-b')


def test_missing_files_and_repositories_are_named(hub, tmp_path):
    with pytest.raises(ConnectionError, match=r'uni3d-l: .*/BAAI/Uni3D does not have modelzoo/uni3d-l/.* at main'):
        download('uni3d-l')
    with pytest.raises(ConnectionError, match=r'recon\+\+-b: .* refuses qizekun/ReConV2; log in with `hf auth login`'):
        download('recon++-b')
    with pytest.raises(FileNotFoundError, match=r'point-mae: .*not lie on the Hugging Face Hub; download it from'):
        download('point-mae')
    with pytest.raises(FileNotFoundError, match='gaussian-mae: its weights have not been published; see https'):
        download('gaussian-mae')
    with pytest.raises(FileNotFoundError, match=r'uni3d-xl: not a published checkpoint; close names are uni3d-\w, '):
        download('uni3d-xl')
    record = hub_file('uni3d-b').record_path
    record.parent.mkdir(parents=True)
    record.write_text('{}')
    with pytest.raises(ValueError, match=r'model\.pt\.json: not a record of revision and sha256 .*remove it'):
        download('uni3d-b')


def _download_to(pipe):
    pipe.send(download('uni3d-b').path)


def test_two_processes_download_one_whole_file(hub):
    context = multiprocessing.get_context('fork')  # which shares the hub with the processes
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=_download_to, args=(sender,)) for _, sender in pipes]
    for process in processes:
        process.start()
    paths = [receiver.recv() for receiver, _ in pipes if receiver.poll(60)]
    for process in processes:
        process.join(60)
    assert len(paths) == 2 and paths[0] == paths[1] and paths[0].read_bytes() == CONTENT
    assert [process.exitcode for process in processes] == [0, 0] and len(hub.contents) <= 2
    assert read_record(hub_file('uni3d-b')).sha256 == SHA256
