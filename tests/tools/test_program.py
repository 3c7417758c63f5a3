"""Behaviour that all programs share: exit codes, one line for an error, names as they were called."""
import importlib
import os
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from clipgs_plugin import write_gaussians
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.tools import test
from clipgs_plugin.toy_world.writing import write_world

LIGHT = {'OMP_NUM_THREADS': '1'}


def call(root, program, *arguments, cwd=None, **options):
    """Run a program as a user does."""
    env = {**os.environ, **LIGHT, 'PYTHONPATH': str(root), **options.pop('env', {})}
    return subprocess.run([sys.executable, str(root / 'tools' / f'{program}.py'), *map(os.fsencode, arguments)],
                          cwd=cwd, env=env, timeout=300, **{'capture_output': True, **options})


def assert_one_line(done, message, status=1):
    """The program failed with one line, without a traceback."""
    lines = done.stderr.decode().splitlines()
    assert done.returncode == status and 'Traceback' not in done.stderr.decode()
    errors = [line for line in lines if line.startswith('error: ')]
    assert errors == lines[-1:] and message in errors[0], lines


@pytest.fixture
def chair(random_cloud, tmp_path):
    write_gaussians(random_cloud(50), tmp_path / 'chair.ply')
    return tmp_path / 'chair.ply'


def limit_files():
    """Let files of the child grow to 4 kB, as on a disk that is nearly full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def test_a_file_that_cannot_grow_is_one_line(root, tmp_path):
    done = call(root, 'make_toy_world', tmp_path / 'world', '--num-train', '1', '--num-val', '0', '--num-test', '0',
                '--workers', '1', preexec_fn=limit_files, env={'NUMBA_DISABLE_JIT': '0'})
    assert_one_line(done, 'File too large')


@pytest.mark.parametrize('program, arguments', [
    ('embed', ['chair.ply', '-o', 'chair.ply/e.npz']), ('make_toy_world', ['n' * 300, '--num-train', '1']),
    ('train', ['clipgs_pointbert-nano_15e_toy-world', '--work-dir', 'chair.ply/run', '--cfg-options',
               'train_dataloader.dataset.root=.', 'val_dataloader.dataset.root=.'])])
def test_a_path_that_the_system_refuses_is_one_line(root, chair, program, arguments):
    assert_one_line(call(root, program, *arguments, cwd=chair.parent), '')


@pytest.mark.parametrize('program, arguments', [
    ('embed', ['chair.ply', '-o', 'a/' + 300 * 'n' + '.npz']), ('make_toy_world', ['chair.ply', '--num-train', '1']),
    ('inspect_triplets', ['chair.ply']), ('run_table', ['backbones', '--out', 'chair.ply']),
    ('embed', ['chair.ply', '--device', 'cuda']), ('embed', ['chair.ply', '--device', 'gpu']),
    ('search', ['e.npz', '--text', 'x', '--device', 'cuda']), ('cache_features', ['world', '--device', 'cuda']),
    ('make_triplets', ['chair.ply', 'out', '--device', 'cuda']),
    ('embed', ['empty']), ('embed', ['absent.ply']), ('embed', ['notes.txt']), ('search', ['notes.txt', '--text', 'x']),
    ('search', ['e.npz', '--image', 'notes.txt']), ('search', ['e.npz', '--image', 'empty']),
    ('search', ['e.npz', '--gaussians', 'notes.txt']), ('search', ['e.npz', '--gaussians', 'empty']),
    ('search', ['e.npz', '--text', ' '])])
def test_what_cannot_be_used_is_one_line(chair, monkeypatch, capsys, program, arguments):
    if 'cuda' in arguments and torch.cuda.is_available():
        pytest.skip('needs a machine without a GPU')
    monkeypatch.chdir(chair.parent)
    (chair.parent / 'empty').mkdir()
    (chair.parent / 'notes.txt').write_text('words')
    SearchIndex(torch.eye(2, 128), (str(chair),) * 2, 'clipgs_toy').save('e.npz')
    if program == 'cache_features':
        write_world(chair.parent / 'world', 1, 0, 0, num_views=2, track=iter)
    with pytest.raises(SystemExit) as exit_:
        monkeypatch.setattr(sys, 'argv', [f'{program}.py', *arguments])
        importlib.import_module(f'clipgs_plugin.tools.{program}').cli()
    *_, last = capsys.readouterr().err.splitlines()
    words = [word for word in arguments if re.match(r'cuda|gpu|empty|absent|notes', word)]
    assert exit_.value.code == 1 and re.match('error: |1 of 1 files', last) and all(
        word in last or last.startswith('1 of 1') for word in words[-1:])


def test_a_full_disk_under_the_output_is_one_line(root, tmp_path):
    with open('/dev/full', 'w') as full:
        done = call(root, 'list_backbones', stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert_one_line(done, 'No space left on device; free some space')


def test_a_reader_that_closes_the_output_is_no_error(root):
    started = subprocess.Popen([sys.executable, str(root / 'tools' / 'list_backbones.py')], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env={**os.environ, **LIGHT, 'PYTHONPATH': str(root)})
    started.stdout.close()
    assert started.stderr.read() == b'' and started.wait(100) == 0



def test_ctrl_c_ends_with_130_and_no_traceback(root, tmp_path):
    started = subprocess.Popen(
        [sys.executable, str(root / 'tools' / 'make_toy_world.py'), str(tmp_path / 'world'), '--workers', '1'],
        stderr=subprocess.PIPE, text=True, env={**os.environ, **LIGHT, 'PYTHONPATH': str(root)})
    while not list((tmp_path / 'world').glob('shards/*')) and started.poll() is None:
        time.sleep(0.1)
    started.send_signal(signal.SIGINT)
    assert started.stderr.read().splitlines()[1:] == ['interrupted'] and started.wait(100) == 130


@pytest.mark.parametrize('locale', [{'PYTHONIOENCODING': 'utf-8:strict'},
                                    {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}])
def test_an_odd_name_of_a_file_costs_nothing(root, chair, locale):
    odd = os.fsencode(chair.parent) + b'/odd-\xff-\xc3\xa9.ply'
    os.rename(chair, odd)
    index = chair.parent / 'e.npz'
    done = call(root, 'embed', chair.parent, '-o', index, env=locale)
    assert done.returncode == 0 and b'\\udcff' in done.stdout, done.stderr
    with np.load(index) as arrays:
        assert [os.fsencode(path) for path in arrays['paths'].tolist()] == [odd]
    done = call(root, 'search', index, '--text', 'a chair', env=locale)
    assert done.returncode == 0 and b'udcff' in b''.join(done.stdout.split()), done.stderr


@pytest.mark.parametrize('name', ['chair.ply', 'cloud.npz', 'text.npz'])
def test_predictions_replace_predictions_only(tmp_path, capsys, name):
    np.savez(tmp_path / 'cloud.npz', points=np.zeros((5, 3)))
    for other in ('chair.ply', 'text.npz'):
        (tmp_path / other).write_text('mine')
    before = (tmp_path / name).read_bytes()
    with pytest.raises(SystemExit) as exit_:
        test.main(['clipgs_pointbert-nano_15e_toy-world', 'absent.pth', '--out', str(tmp_path / name)])
    assert exit_.value.code == 2 and 'a file of predictions' in capsys.readouterr().err
    assert (tmp_path / name).read_bytes() == before


def convert_onto(root, chair, disk, mount):
    """Convert a file onto a small file system in a mount namespace of its own; return the errors."""
    disk.mkdir()
    mount = f'mount -t tmpfs -o nr_inodes=5,size=1m none {disk} && {mount}'
    try:
        allowed = subprocess.run(['unshare', '-m', 'sh', '-c', mount], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip('there is no unshare')
    if allowed.returncode:
        pytest.skip(f'no mount namespace: {allowed.stderr.strip()}')
    program = f'{sys.executable} {root}/tools/convert_gaussians.py {chair} {disk}/mug.ply'
    return errors_of(subprocess.run(['unshare', '-m', 'sh', '-c', f'{mount} && {program}'], capture_output=True,
                                    env={**os.environ, **LIGHT, 'PYTHONPATH': str(root)}, timeout=120))


def errors_of(done):
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1 and 'Traceback' not in done.stderr.decode()
    return [line for line in lines if line.startswith('error: ')]


def test_a_disk_without_free_inodes_is_one_line(root, chair):
    """The root of the file system, two folders and two files take all five."""
    disk = chair.parent / 'disk'
    errors = convert_onto(root, chair, disk, f'mkdir {disk}/1 {disk}/2 && touch {disk}/3 {disk}/4')
    assert errors == [f'error: {disk}/mug.ply: No space left on device; free some space and files, or write elsewhere']


def test_a_read_only_folder_is_one_line(root, chair):
    """Permissions do not bind the superuser, a file system that is mounted read-only does."""
    folder = chair.parent / 'read_only'
    if os.geteuid() == 0:
        errors, reason = convert_onto(root, chair, folder, f'mount -o remount,ro {folder}'), 'Read-only file system'
    else:
        folder.mkdir(mode=0o555)
        errors, reason = errors_of(call(root, 'convert_gaussians', chair, folder / 'mug.ply')), 'Permission denied'
    assert errors == [f'error: {folder}/mug.ply: {reason}; check its permissions, or name another place']
    assert not list(folder.iterdir())
