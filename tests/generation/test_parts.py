"""Parts of a job array become one dataset, even if the join is killed."""
import contextlib
import json
import os
import shutil
from dataclasses import replace
from functools import partial
from itertools import count

import pytest
import torch
from test_run import HERE, SMALL, contents, write_chairs

from clipgs_plugin.generation import Execution, Listed, generate, join_parts, parts
from clipgs_plugin.generation.sources.splats import SplatSource
from clipgs_plugin.triplets import ShardReader


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of five splat files."""
    return write_chairs(tmp_path_factory.mktemp('files'))


def test_parts_join_to_the_objects_of_one_run(files, tmp_path):
    generate(SplatSource(), files, tmp_path / 'whole', SMALL, HERE)
    for i in (1, 0, 2):
        generate(SplatSource(), files, tmp_path, SMALL, Execution(workers=0, shard_index=i, num_shards=3))
    assert join_parts(tmp_path) == 5
    ours, expected = ShardReader(tmp_path), ShardReader(tmp_path / 'whole')
    assert ours.uids == [f'chair_{i}' for i in (0, 3, 1, 4, 2)]
    for i, uid in enumerate(ours.uids):
        j = expected.uids.index(uid)
        assert ours.read_record(i) == expected.read_record(j)
        assert torch.equal(ours.read_gaussians(i).means, expected.read_gaussians(j).means)
    assert not (tmp_path / 'parts').exists() and len((tmp_path / 'timings.jsonl').read_text().splitlines()) == 5


class Chairs(SplatSource):
    """Source of chairs by number; `x` is a missing file."""

    def __init__(self, numbers):
        super().__init__()
        self._numbers = numbers

    def list(self, root):
        return [Listed(f'chair_{i}', root / f'chair_{i}.ply') for i in self._numbers]


def make_dataset_with_parts(files, out, numbers=('12', '3', '4x')):
    """Make a dataset of the first chair, and parts with the others, in shards of one object."""
    for i, part in enumerate(['', '00000-of-00003', '00001-of-00003', '00002-of-00003']):
        generate(Chairs(['0', *numbers][i]), files, out / 'parts' / part if part else out,
                 replace(SMALL, objects_per_shard=1), HERE)


class Killed(BaseException):
    """Simulated kill of a join."""


def killed(function, at):
    """Wrap a function so that call number ``at`` raises instead."""
    calls = count()

    def called(*args, **options):
        if next(calls) == at:
            raise Killed
        return function(*args, **options)
    return called


def remove(folder, unlink):
    """Delete a folder file by file."""
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else unlink(path)
    folder.rmdir()


@pytest.mark.parametrize('step', ['replace', 'rmtree'])
def test_a_join_continues_wherever_it_was_killed(files, tmp_path, monkeypatch, step):
    make_dataset_with_parts(files, tmp_path / 'parts')
    (tmp_path / 'parts' / 'failed.jsonl').write_text('{"uid": "old"}\n{"uid": "cut')
    shutil.copytree(tmp_path / 'parts', tmp_path / 'joined')
    assert join_parts(tmp_path / 'joined') == 5
    expected = contents(tmp_path / 'joined')
    assert sorted(expected) == ['dataset.json', 'index.parquet', *(f'shards/0000{i}.tar' for i in range(5))]
    finished = None
    for kill in count():
        out = tmp_path / f'killed_{kill}'
        shutil.copytree(tmp_path / 'parts', out)
        with monkeypatch.context() as patch:
            if step == 'replace':
                patch.setattr(parts.os, 'replace', killed(os.replace, kill))
            else:
                patch.setattr(parts.shutil, 'rmtree', partial(remove, unlink=killed(os.unlink, kill)))
            with contextlib.suppress(Killed):
                finished = join_parts(out)
        assert join_parts(out) == 5 and join_parts(out) == 5
        assert contents(out) == expected
        for name, uids in (('failed', ['chair_x', 'old']), ('timings', [f'chair_{i}' for i in range(5)])):
            lines = (out / f'{name}.jsonl').read_text().splitlines()
            assert sorted(json.loads(line)['uid'] for line in lines) == uids
        if finished:
            break
    assert finished == 5 and kill > 6


def test_a_dataset_with_other_settings_takes_no_parts(files, tmp_path):
    make_dataset_with_parts(files, tmp_path)
    card = json.loads((tmp_path / 'dataset.json').read_text())
    (tmp_path / 'dataset.json').write_text(json.dumps({**card, 'dtype': 'float16'}))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path} was made with other .* dtype: found 'float16', expected "
                                         f"'float32'; "
                                         f'move {tmp_path}/parts into another folder'):
        join_parts(tmp_path)
    assert contents(tmp_path) == before
    (tmp_path / 'dataset.json').unlink()
    before.pop('dataset.json')
    with pytest.raises(FileNotFoundError, match=r'dataset\.json'):
        join_parts(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize('last, places', [('40', ("'chair_0'", 'parts/00002-of-00003', '')),
                                          ('41', ("'chair_1'", 'parts/00000-of-00003', 'parts/00002-of-00003'))])
def test_a_repeated_object_is_found_before_anything_is_moved(files, tmp_path, last, places):
    make_dataset_with_parts(files, tmp_path, ('12', '3', last))
    before = contents(tmp_path)
    uid, one, other = places
    with pytest.raises(ValueError, match=f'{uid} is in {tmp_path / one} and in {tmp_path / other}; '):
        join_parts(tmp_path)
    assert contents(tmp_path) == before


def test_an_unfinished_part_is_not_joined(files, tmp_path):
    with pytest.raises(FileNotFoundError, match='no parts'):
        join_parts(tmp_path)
    generate(SplatSource(), files, tmp_path, SMALL, Execution(workers=0, shard_index=0, num_shards=2))
    with pytest.raises(FileNotFoundError, match='00001-of-00002 is not finished'):  # it never began
        join_parts(tmp_path)
    (tmp_path / 'parts' / '00001-of-00002').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='00001-of-00002 is not finished'):
        join_parts(tmp_path)
    (tmp_path / 'parts' / '00001-of-00003').mkdir(parents=True)
    with pytest.raises(ValueError, match='00000-of-00002 and 00001-of-00003, parts of different arrays'):
        join_parts(tmp_path)


def test_parts_with_other_settings_are_not_joined(files, tmp_path):
    for i, renderer in enumerate(['raycast', 'raycast', 'egl']):
        generate(SplatSource(), files, tmp_path, SMALL, Execution(workers=0, shard_index=i, num_shards=3))
        card = tmp_path / 'parts' / f'0000{i}-of-00003' / 'dataset.json'
        card.write_text(card.read_text().replace('"renderer": "raycast"', f'"renderer": "{renderer}"'))
    with pytest.raises(ValueError, match=r"00002-of-00003 .* generator\.renderer: found 'egl', expected 'raycast'"):
        join_parts(tmp_path)
