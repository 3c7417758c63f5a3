"""tools/embed.py keeps the folder of an index up to date."""
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from clipgs_plugin import apis
from clipgs_plugin.apis import stream_embeddings
from clipgs_plugin.io.lock import FolderInUse, folder_lock
from clipgs_plugin.search import SearchIndex, commit
from clipgs_plugin.tools import embed, search
from clipgs_plugin.tools._program import run
from clipgs_plugin.toy_world.writing import export_files

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def toys(tmp_path_factory):
    folder = tmp_path_factory.mktemp('toys')
    export_files(folder, 6, num_gaussians=100)
    return folder


@pytest.fixture
def folder(toys, tmp_path):
    """Copies of six files, and one that is none."""
    for i, path in enumerate(sorted(toys.iterdir())):
        (tmp_path / 'files' / 'ab'[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, tmp_path / 'files' / 'ab'[i % 2] / f'{i}{path.suffix}')
    (tmp_path / 'files' / 'a' / 'broken.ply').write_text('no splat')
    return tmp_path / 'files'


def failures(index):
    return [json.loads(line) for line in (index / 'failed.jsonl').read_text().splitlines()]


def test_an_index_follows_its_folder(folder, tmp_path, capsys):
    index, alone = tmp_path / 'new' / 'index', tmp_path / 'alone.npz'
    command = [str(folder), '-o', str(index), '--category-from-folder']
    assert embed.main([*command, '--json']) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 6 and '1 of 7 files could not be embedded' in shown.err
    assert [(os.path.basename(entry['path']), entry['error'], entry['size']) for entry in failures(index)] == [
        ('broken.ply', 'ValueError', 8)]
    assert embed.main([str(folder), '-o', str(alone)]) == 1
    found, expected = SearchIndex.load(index), SearchIndex.load(alone)
    assert found.paths == expected.paths and torch.allclose(found.embeddings, expected.embeddings, atol=1e-3)
    row = found.table.to_pylist()[0]
    assert (row['category'], row['gaussians'], row['sh_degree'], row['up_confidence']) == ('a', 100, 0, 1)
    assert found.ups == expected.ups and found.options == expected.options
    assert row['size'] == os.path.getsize(row['path']) and row['mtime_ns'] == os.stat(row['path']).st_mtime_ns
    capsys.readouterr()

    assert embed.main(command) == 1  # nothing to do, and one file is still bad
    assert 'Embedding 0 files' in (shown := capsys.readouterr()).err and not shown.out
    assert '6 unchanged, 1 failed before' in shown.err and '--retry-failed' in shown.err

    changed, gone = sorted(folder.glob('b/*'))[:2]
    shutil.copy(found.paths[0], changed)
    gone.unlink()
    shutil.copy(next(folder.glob('?/[0-9].ply')), folder / 'a' / 'broken.ply')
    assert embed.main(command) == 0
    shown = capsys.readouterr()
    assert 'Embedding 2 files' in shown.err and '4 unchanged, 1 gone and dropped' in shown.err
    assert len(shown.out.splitlines()) == 2 and not (index / 'failed.jsonl').exists()
    again = SearchIndex.load(index)
    assert set(again.paths) == {*found.paths, str(folder / 'a' / 'broken.ply')} - {str(gone)}
    same = again.paths.index(str(changed)), again.paths.index(found.paths[0])
    assert torch.allclose(*again.vectors(same), atol=1e-3)  # float16


def test_failures_are_tried_again_on_request_and_forgotten_with_their_files(folder, tmp_path, capsys):
    index, broken = tmp_path / 'index', folder / 'a' / 'broken.ply'
    command = [str(broken), str(folder / 'a' / '0.ply'), '-o', str(index)]
    command[1] = str(sorted(folder.glob('a/0*'))[0])
    assert embed.main(command) == embed.main([*command, '--retry-failed']) == 1
    assert capsys.readouterr().err.count('failed   ') == 2 and len(failures(index)) == 1
    broken.unlink()
    assert embed.main([*command[1:], '--json']) == 0
    assert not (index / 'failed.jsonl').exists()


def test_a_damaged_list_of_failures_is_named_and_kept(folder, tmp_path, capsys):
    command = [str(folder), '-o', str(tmp_path / 'index')]
    assert embed.main(command) == 1
    path = tmp_path / 'index' / 'failed.jsonl'
    sound = path.read_text()
    path.write_text(f'{sound}no object\n')
    with pytest.raises(ValueError, match=r'failed\.jsonl: line 2: .*JSON .*; delete the line or the file') as said:
        embed.main(command)
    assert path.read_text() == f'{sound}no object\n' and 'download' not in str(said.value)
    path.unlink()
    assert embed.main(command) == 1 and path.read_text() == sound


def test_rows_without_a_category_are_given_one(folder, tmp_path, capsys):
    index = tmp_path / 'index'
    command = [str(folder), '-o', str(index)]
    assert embed.main([str(folder / 'b'), '-o', str(index)]) == 0
    before = SearchIndex.load(index)
    sorted(folder.glob('b/*'))[0].unlink()
    for words in ('2 unchanged, 2 of them given a category, 1 gone', '5 unchanged, 1 failed before'):
        capsys.readouterr()
        assert embed.main([*command, '--category-from-folder']) == 1
        assert words in capsys.readouterr().err
    found = SearchIndex.load(index, verify=True)
    assert [(os.path.basename(os.path.dirname(row['path'])), row['gaussians']) for row in found.table.to_pylist()] == [
        (category, 100) for category in found.table['category'].to_pylist()] and len(found.rows('category=b')) == 2
    assert torch.equal(found.vectors(found.rows('category=b')), before.vectors([1, 2]))


def test_a_large_index_without_codes_is_noted(folder, tmp_path, capsys, monkeypatch):
    index, path = tmp_path / 'index', str(next(folder.glob('a/[0-9]*')))
    monkeypatch.setattr('clipgs_plugin.search.approximate.LARGE', 2)
    assert embed.main([path, '-o', str(index)]) == 0 and 'codes' not in capsys.readouterr().err
    assert embed.main([str(folder / 'b'), '-o', str(index)]) == 0
    note = f'note: {index} has 4 objects and no codes, so a search compares the query with each of them; make it fast '
    assert note in (shown := capsys.readouterr().err) and f'{index} --build-approximate' in shown
    query = [str(index), '--gaussians', path, '--json']
    assert search.main(query) == 0 and note in capsys.readouterr().err
    assert search.main([*query, '--exact']) == 0 and note not in capsys.readouterr().err


def test_a_changed_file_that_cannot_be_read_any_more_leaves_the_index(folder, tmp_path):
    path, index = sorted(folder.glob('a/0*'))[0], tmp_path / 'index'
    assert embed.main([*map(str, folder.glob('a/[0-9]*')), '-o', str(index)]) == 0
    path.write_text('no splat any more')
    assert embed.main([*map(str, folder.glob('a/[0-9]*')), '-o', str(index)]) == 1
    assert str(path) not in SearchIndex.load(index).paths and len(SearchIndex.load(index)) == 2


KILLED = """
import os, signal, sys
from functools import partialmethod
from clipgs_plugin.search import IndexWriter
from clipgs_plugin.tools import embed, search
IndexWriter.__init__ = partialmethod(IndexWriter.__init__, flush_rows=2)
read = embed.prepared
embed.prepared = lambda path, *options: (
    os.kill(os.getpid(), signal.SIGKILL) if path.name.startswith('5') else read(path, *options))
embed.main([sys.argv[1], '-o', sys.argv[2], '--batch-size', '1'])
"""


@pytest.fixture
def workers(monkeypatch):
    """Numbers of worker processes that runs ask for; none is started."""
    asked = []
    monkeypatch.setattr(apis, 'stream_embeddings', lambda *args, workers, **options: (
        asked.append(workers), stream_embeddings(*args, workers=0, **options))[1])
    return asked


def test_a_killed_run_continues(folder, tmp_path, capsys, workers):
    index = tmp_path / 'index'
    done = subprocess.run([sys.executable, '-c', KILLED, str(folder), str(index)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(SearchIndex.load(index)) == 4 and len(failures(index)) == 1
    assert embed.main([str(folder), '-o', str(index)]) == 1
    assert 'Embedding 2 files with clipgs_toy' in (shown := capsys.readouterr().err) and '4 unchanged' in shown
    assert 'the run before was killed' in shown and len(SearchIndex.load(index)) == 6
    shutil.copy(folder / 'a' / 'broken.ply', folder / 'b')
    assert embed.main([str(folder), '-o', str(index)]) == 1
    assert workers == [1, 0] and 'was killed' not in capsys.readouterr().err  # a file may have crashed the first run


def test_a_file_that_failed_in_a_killed_run_does_not_leave_its_former_row(folder, tmp_path):
    path, index = sorted(folder.glob('a/0*'))[0], tmp_path / 'index'
    assert embed.main([str(path), '-o', str(index)]) == 0
    kept = shutil.copytree(index, tmp_path / 'kept')
    path.write_text('no splat any more')
    assert embed.main([str(path), '-o', str(index)]) == 1
    shutil.copy(index / 'failed.jsonl', kept)  # as if the run had been killed before the row was dropped
    assert embed.main([str(path), '-o', str(kept)]) == 1 and len(SearchIndex.load(kept)) == 0


def test_a_full_disk_keeps_what_was_written(folder, tmp_path, monkeypatch):
    index, some = tmp_path / 'index', [str(path) for path in folder.glob('a/[0-9]*')]
    assert embed.main([*some, '-o', str(index)]) == 0

    def full(path, parts):
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setattr(commit, 'write_whole', full)
        embed.main([str(folder), '-o', str(index)])
    assert sorted(SearchIndex.load(index).paths) == sorted(some)
    assert embed.main([str(folder), '-o', str(index)]) == 1 and len(SearchIndex.load(index)) == 6


@pytest.mark.parametrize('out', ['index', 'e.npz', 'new/index'])
def test_a_place_that_cannot_be_written_ends_in_a_line_before_any_work(folder, tmp_path, capsys, permissions_hold, out):
    some, place = [str(path) for path in folder.glob('a/[0-9]*')], tmp_path / 'place'
    assert embed.main([*some, '-o', str(place / 'index')]) == embed.main([*some, '-o', str(place / 'e.npz')]) == 0
    before = {path: path.read_bytes() for path in place.rglob('*') if path.is_file()}
    capsys.readouterr()
    for path in (place, place / 'index'):
        path.chmod(0o555)
    with pytest.raises(SystemExit) as stopped:
        run(lambda: embed.main([str(folder), '-o', str(place / out)]))
    shown = capsys.readouterr()
    assert stopped.value.code == 1 and not shown.out
    assert shown.err.splitlines()[-1].startswith(f'error: {place}') and shown.err.splitlines()[-1].endswith(
        ': Permission denied; check its permissions, or name another place')
    for path in (place, place / 'index'):
        path.chmod(0o755)
    assert {path: path.read_bytes() for path in place.rglob('*') if path.is_file()} == before


def test_a_full_disk_keeps_the_file_that_was_there(folder, tmp_path, monkeypatch, capsys):
    out, some = tmp_path / 'e.npz', [str(path) for path in folder.glob('a/[0-9]*')]
    assert embed.main([*some, '-o', str(out)]) == 0
    before = out.read_bytes()

    def full(path, parts):
        raise OSError(errno.ENOSPC, 'No space left on device', str(path))
    monkeypatch.setattr('clipgs_plugin.io.files.write_whole', full)
    with pytest.raises(SystemExit) as stopped:
        run(lambda: embed.main([str(folder), '-o', str(out)]))
    assert stopped.value.code == 1 and out.read_bytes() == before
    assert capsys.readouterr().err.splitlines()[-1] == (
        f'error: {out}.part: No space left on device; free some space and files, or write elsewhere')


def test_an_index_of_other_options_or_in_use_is_refused(folder, tmp_path):
    index, path = tmp_path / 'index', str(next(folder.glob('a/[0-9]*')))
    assert embed.main([path, '-o', str(index)]) == 0
    with pytest.raises(ValueError, match=r'options .*--up=y.*, not .*--up=z'):
        embed.main([path, '-o', str(index), '--up', 'z'])
    with folder_lock(index), pytest.raises(FolderInUse, match='in use'):
        embed.main([path, '-o', str(index)])


def test_many_files_have_no_line_each_but_failures_are_shown(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(embed, 'MANY', 3)
    monkeypatch.setattr(embed, 'SHOWN', 0)
    monkeypatch.setattr(embed, 'LOG_EVERY', 0)
    assert embed.main([str(folder), '-o', str(tmp_path / 'index')]) == 1
    shown = capsys.readouterr()
    assert not shown.out and 'failed   ' not in shown.err and '7 of 7, ' in shown.err and ', 1 failed' in shown.err


def test_names_of_files_cannot_write_to_the_terminal(folder, tmp_path, capsys):
    (folder / 'b' / '1.ply').rename(folder / 'b' / 'ok\x1b[2J\nfailed   x.ply')
    (folder / 'a' / 'broken.ply').rename(folder / 'a' / 'bro\x1b[2Jken.ply')
    os.rename(folder / 'a' / '0.spz', os.fsencode(folder) + b'/a/caf\xe9.spz')
    assert embed.main([str(folder), '-o', str(tmp_path / 'index'), '--workers', '0']) == 1
    shown = capsys.readouterr()
    assert '\x1b' not in shown.out + shown.err
    assert '/ok\\x1b[2J\\nfailed   x.ply: 100 Gaussians' in shown.out and 'bro\\x1b[2Jken.ply: not a PLY' in shown.err
    assert 'since a text is not Unicode; rename the file or change the text' in shown.err


@pytest.mark.parametrize('arguments, reason', [
    (['--batch-size', '0'], '--batch-size is at least 1'), (['--workers', '-1'], 'at least 0'),
    (['--engine', 'ray', '--up', 'auto', '--up-cue', 'model'], 'works with --engine here alone'),
    (['--time-limit', 'nan'], 'at least 0'), (['-o', ''], "an empty name; name '.' for this folder"),
    (['--precision', 'fp16'], 'fp16')])
def test_wrong_options_exit_with_two(tmp_path, capsys, arguments, reason):
    with pytest.raises(SystemExit) as stopped:
        embed.main([str(tmp_path), '-o', str(tmp_path / 'index'), *arguments])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err
