"""What all programs share, seen from outside: exit codes, one line for an error, names as they were called."""
import os
import resource
import signal
import subprocess
import sys

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
    ('embed', ['chair.ply', '-o', 'chair.ply/e.npz']), ('embed', ['chair.ply', '-o', 'a/' + 300 * 'n' + '.npz']),
    ('make_toy_world', ['chair.ply', '--num-train', '1']),
    ('make_toy_world', ['n' * 300, '--num-train', '1']),
    ('train', ['clipgs_pointbert-nano_15e_toy-world', '--work-dir', 'chair.ply/run', '--cfg-options',
               'train_dataloader.dataset.root=.', 'val_dataloader.dataset.root=.']),
    ('inspect_triplets', ['chair.ply']), ('run_table', ['backbones', '--out', 'chair.ply'])])
def test_a_path_that_the_system_refuses_is_one_line(root, chair, program, arguments):
    assert_one_line(call(root, program, *arguments, cwd=chair.parent), '')


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
    assert started.stderr.readline().startswith('Making')
    started.send_signal(signal.SIGINT)
    assert started.stderr.read().strip() == 'interrupted' and started.wait(100) == 130


@pytest.mark.parametrize('locale', [{'PYTHONIOENCODING': 'utf-8:strict'},
                                    {'LC_ALL': 'C'}, {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}])
def test_an_odd_name_of_a_file_costs_nothing(root, chair, locale):
    odd = os.fsencode(chair.parent) + b'/odd-\xff-\xc3\xa9.ply'
    os.rename(chair, odd)
    index = chair.parent / 'e.npz'
    done = call(root, 'embed', chair.parent, '-o', index, env=locale)
    assert done.returncode == 0, done.stderr
    assert b'\\udcff' in done.stdout
    with np.load(index) as arrays:
        assert [os.fsencode(path) for path in arrays['paths'].tolist()] == [odd]
    done = call(root, 'search', index, '--text', 'a chair', env=locale)
    assert done.returncode == 0 and b'udcff' in b''.join(done.stdout.split()), done.stderr
    done = call(root, 'convert_gaussians', odd, chair.parent / 'out.spz', env=locale)
    assert done.returncode == 0 and b'\\udcff' in done.stdout, done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without a GPU')
@pytest.mark.parametrize('program', ['embed', 'search', 'cache_features', 'make_triplets'])
def test_a_device_that_is_not_there_is_one_line(root, chair, program):
    index = chair.with_name('e.npz')
    SearchIndex(torch.eye(2), (str(chair), str(chair)), 'clipgs_toy').save(index)
    arguments = {'embed': [chair, '-o', index], 'search': [index, '--text', 'x'],
                 'cache_features': [chair.parent / 'triplets'],
                 'make_triplets': [chair, chair.parent / 'out']}[program]
    if program == 'cache_features':
        write_world(chair.parent / 'triplets', 1, 0, 0, num_views=2, track=iter)
    assert_one_line(call(root, program, *arguments, '--device', 'cuda'), 'cuda')


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
