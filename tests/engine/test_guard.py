"""Runs on days when things go wrong: each ends in one sentence."""
import errno
import os
import resource
import subprocess
import sys

import pytest
from test_training import CONFIG, HERE, runs_apart, toy_on_the_path_and_one_thread  # noqa: F401

from clipgs_plugin import engine
from clipgs_plugin.tools import train as train_tool

SHORT = ['--cfg-options', 'train_cfg.max_epochs=1', 'vis_backends=[]', 'visualizer.vis_backends=[]']


def train(work_dir, *options):
    return train_tool.main([str(CONFIG), '--work-dir', str(work_dir), *SHORT, *options])


def test_a_work_dir_has_one_run_at_a_time(tmp_path):
    with engine.claimed(tmp_path):
        code = f'from clipgs_plugin import engine\nwith engine.claimed({str(tmp_path)!r}): pass'
        other = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert other.returncode == 1 and f'is in use by process {os.getpid()}' in other.stderr
        with pytest.raises(OSError, match='is in use by this process'):
            train(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ['.lock']  # refused before anything is written
        with engine.claimed(tmp_path / 'other'):
            pass
    with engine.claimed(tmp_path):
        pass


def test_processes_of_one_launcher_share_the_work_dir(tmp_path, monkeypatch):
    with engine.claimed(tmp_path):
        monkeypatch.setenv('RANK', '1')
        with engine.claimed(tmp_path):
            pass


def test_errors_of_a_run_are_a_sentence_and_a_file(tmp_path):
    with pytest.raises(ValueError, match=r'^KeyError: .*NoSuchEncoder.*; the traceback is in .*') as found:
        train(tmp_path, 'model.encoder.type=NoSuchEncoder')
    assert '\n' not in str(found.value)
    assert 'Traceback' in (tmp_path / 'traceback.txt').read_text()


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_named_and_leaves_no_part_of_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr('clipgs_plugin.io.files.os.replace', full)
    with pytest.raises(OSError, match='No space left'):
        train(tmp_path)
    assert not [path for path in tmp_path.iterdir() if '.pth' in path.name]


def test_a_limit_on_the_size_of_files_is_named_in_one_line(tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
    code = ('from clipgs_plugin.tools import train\nfrom clipgs_plugin.tools._program import run\nrun(train.main)')
    env = os.environ | {'PYTHONPATH': os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    found = subprocess.run([sys.executable, '-c', code, str(CONFIG), '--work-dir', str(tmp_path), *SHORT], env=env,
                           capture_output=True, text=True, preexec_fn=limit)
    assert found.returncode == 1 and not list(tmp_path.glob('*.pth'))
    assert 'File too large' in found.stderr and 'Logging error' not in found.stderr


@pytest.mark.parametrize('name, error', [('file/run', NotADirectoryError), (300 * 'x', OSError)])
def test_a_work_dir_that_cannot_be_is_an_error_of_the_system(name, error, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(error):
        train(tmp_path / name)
