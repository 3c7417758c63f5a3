"""Replacement of the results of a scene, stopped at every step."""
import os
import shutil
from itertools import count

import pytest
import torch

from clipgs_plugin.io.lock import FolderInUse, folder_lock
from clipgs_plugin.scenes import is_replaced
from clipgs_plugin.scenes.replacing import INDEX, MARK, SCORES, TABLE, replaced_together
from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex

OWN = {'mine.txt', 'objects/mine.ply', 'index/mine.txt'}


class Stop(BaseException):
    pass


def write(out, objects, model, scores):
    """Write results with the name of a model in each file."""
    with replaced_together(out) as new:
        for name in [*(f'objects/{i:04d}.ply' for i in objects), *([SCORES] if scores else []), TABLE]:
            (new / name).write_text(model)
        with IndexWriter(new / INDEX, IndexCard(model, 2), rows_per_shard=len(objects) - 1) as index:
            for i in objects:
                index.add(out / f'objects/{i:04d}.ply', torch.eye(2)[i % 2], size=4, mtime_ns=1, gaussians=i,
                          sh_degree=0, up='y', up_confidence=1.)


def state(out):
    """Return the files that a user sees, with their content."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*')
            if path.is_file() and path.name != MARK and '.new' not in path.relative_to(out).parts}


@pytest.fixture
def out(tmp_path):
    """Results of a run, among files of the user."""
    out = tmp_path / 'out'
    out.mkdir()
    write(out, [1, 2, 3], 'old', True)
    for name in OWN:
        (out / name).write_text('mine')
    return out


def test_a_run_that_is_stopped_at_any_renaming_loses_nothing(out, tmp_path, monkeypatch):
    shutil.copytree(out, tmp_path / 'copy')
    old, rename = state(out), os.replace
    write(out, [2, 4], 'new', False)
    new, seen = state(out), []
    assert new.keys() & old.keys() >= OWN and not {'objects/0003.ply', SCORES} & new.keys()
    assert new['objects/0002.ply'] == b'new' and len(SearchIndex.load(out / INDEX)) == 2
    for steps in count():
        shutil.rmtree(out)
        shutil.copytree(tmp_path / 'copy', out)
        left = iter(range(steps))

        def stopping(*args, left=left):
            if next(left, None) is None:
                raise Stop
            rename(*args)
        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', stopping)
            try:
                write(out, [2, 4], 'new', False)
                break
            except Stop:
                pass
        if not (out / '.new.ready').exists() and not (out / '.new.moving').exists():
            assert state(out) == old
        with pytest.raises(Stop), replaced_together(out):
            raise Stop
        seen.append(state(out))
    assert all(each in (old, new) for each in seen) and old in seen and seen[-1] == new
    assert [each == new for each in seen] == sorted(each == new for each in seen)
    assert not list(out.glob('.new*'))


def test_a_failure_and_a_kill_leave_the_results(out, monkeypatch):
    old = state(out)
    with pytest.raises(OSError, match='full'), replaced_together(out) as new:
        (new / TABLE).write_text('half')
        raise OSError('full')
    assert state(out) == old and not list(out.glob('.new*'))
    with monkeypatch.context() as patch, pytest.raises(Stop), replaced_together(out) as new:
        patch.setattr(shutil, 'rmtree', lambda *args, **options: None)
        (new / TABLE).write_text('half')
        raise Stop
    assert (out / '.new' / TABLE).is_file() and (out / TABLE).read_text() == 'old'
    assert SearchIndex.load(out / INDEX).model == 'old'
    with folder_lock(out / INDEX), pytest.raises(FolderInUse, match='index is in use'):
        write(out, [1, 2], 'new', True)
    write(out, [1, 2], 'new', True)
    assert (out / TABLE).read_text() == 'new' and not list(out.glob('.new*'))


@pytest.mark.parametrize('name, replaced', [
    (TABLE, True), ('objects/0002.ply', True), ('objects/../objects/12345.ply', True), ('index/index.json', True),
    ('objects/mine.ply', False), ('objects/002.ply', False), ('mine.ply', False), ('../objects/0002.ply', False),
    ('', False)])
def test_results_are_known_by_their_names(tmp_path, monkeypatch, name, replaced):
    monkeypatch.chdir(tmp_path)
    assert is_replaced('out', tmp_path / 'out' / name) is replaced
    (tmp_path / 'link').symlink_to(tmp_path / 'out')
    assert is_replaced(tmp_path / 'out', f'link/{name}') is replaced
