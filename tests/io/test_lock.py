import errno
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from clipgs_plugin.io import lock
from clipgs_plugin.io.lock import FolderInUse, folder_lock

HOLD = '''
import sys, time
from clipgs_plugin.io.lock import folder_lock
with folder_lock(sys.argv[1]):
    print('held', flush=True)
    time.sleep(60)
'''
FORK = '''
import os, sys, time
from clipgs_plugin.io.lock import folder_lock
with folder_lock(sys.argv[1]):
    if os.fork() == 0:
        print('held', flush=True)
        time.sleep(10)
        os._exit(0)
    time.sleep(60)
'''


def start(code, folder):
    process = subprocess.Popen([sys.executable, '-c', code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    return process


def test_a_folder_is_locked_once_within_a_process_and_free_after(tmp_path):
    with folder_lock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ['.lock']
        with pytest.raises(FolderInUse, match='in use by this process'), folder_lock(tmp_path / '.'):
            pass
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
        1 / 0  # noqa: B018
    with folder_lock(tmp_path):
        pass


def test_another_process_is_named_and_its_lock_is_taken_over_when_it_was_killed(tmp_path):
    process = start(HOLD, tmp_path)
    try:
        for _ in range(2):  # an attempt does not free the lock
            with pytest.raises(FolderInUse, match=f'in use by process {process.pid} on .*; wait until it ends'), \
                    folder_lock(tmp_path):
                pass
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / '.lock').exists()
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / '.lock').read_text()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path):
    process = start(FORK, tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with folder_lock(tmp_path):
        pass


@pytest.mark.skipif(os.name == 'nt', reason='locks of POSIX')
def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    import fcntl

    def refuse(file, flags, length, start):
        assert length == 1 and start > 200  # beyond the name of the owner
        raise OSError(errno.ENOSYS, 'Function not implemented')
    monkeypatch.setattr(fcntl, 'lockf', refuse)
    with pytest.warns(UserWarning, match='this file system has no locks'), folder_lock(tmp_path):
        assert tmp_path.resolve() in lock._HELD


@pytest.mark.skipif(os.name == 'nt', reason='an open file cannot be removed there')
def test_the_file_is_removed_while_it_is_locked(tmp_path, monkeypatch):
    events = []  # the other order would let a process lock a file that is about to go
    monkeypatch.setattr(lock, '_acquire', lambda path: SimpleNamespace(close=lambda: events.append('close')))
    monkeypatch.setattr(lock.Path, 'unlink', lambda path: events.append('unlink'))
    with folder_lock(tmp_path):
        assert not events
    assert events == ['unlink', 'close']


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent'), folder_lock(tmp_path / 'absent'):
        pass
