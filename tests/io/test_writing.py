"""Writes that are killed at any moment leave the old object or the new one, and nothing that stays for ever."""
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io import sog
from clipgs_plugin.io.files import write_whole


class Killed(BaseException):
    """Stand-in for the end of the process."""


@pytest.fixture
def kill_at(monkeypatch):
    """Return a function that ends the process, before or after its n-th operation on files."""
    def kill(number: int, after: bool):
        done = 0

        def killing(original):
            def call(*args, **kwargs):
                nonlocal done
                done += 1
                if done > number:
                    raise Killed
                if done < number or after:
                    result = original(*args, **kwargs)
                if done == number:
                    raise Killed
                return result
            return call

        for module, name in ((os, 'replace'), (os, 'unlink'), (Path, 'open')):
            monkeypatch.setattr(module, name, killing(getattr(module, name)))
    return kill


@pytest.mark.parametrize('degrees, after', [((1, 1), False), ((1, 0), True), ((0, 1), True)])
def test_a_sog_folder_that_is_overwritten_and_killed_holds_one_object(
        random_cloud, tmp_path, kill_at, monkeypatch, degrees, after):
    old, new = (random_cloud(12, seed=seed, sh_degree=degree) for seed, degree in enumerate(degrees))
    for name, cloud in (('old', old), ('new', new)):
        (tmp_path / name).mkdir()
        write_gaussians(cloud, tmp_path / name / sog.META)
    means = {name: read_gaussians(tmp_path / name) for name in ('old', 'new')}
    found, number, done = set(), 0, False
    while not done:
        number += 1
        folder = tmp_path / f'{number}'
        folder.mkdir()
        write_gaussians(old, folder / sog.META)
        kill_at(number, after)
        try:
            write_gaussians(new, folder / sog.META)
            done = True
        except Killed:
            pass
        monkeypatch.undo()
        back = read_gaussians(folder)
        same = [name for name, cloud in means.items() if back.sh_degree == cloud.sh_degree
                and all(torch.equal(a, b) for (_, a), (_, b) in zip(back.fields(), cloud.fields()))]
        assert len(same) == 1, f'a mixture after operation {number}'
        found |= set(same)
        assert not done or same == ['new']
        write_gaussians(old, folder / sog.META)  # clears what the kill left
        named = {name for group in json.loads((folder / sog.META).read_text()).values() if isinstance(group, dict)
                 for name in group['files']}
        assert {path.name for path in folder.iterdir()} == named | {sog.META}
    assert number > 10 and found == {'old', 'new'}


def test_two_objects_of_one_folder_do_not_share_images(random_cloud, tmp_path):
    write_gaussians(random_cloud(20, seed=1), tmp_path / 'a.meta.json')
    first = read_gaussians(tmp_path / 'a.meta.json')
    for seed in (2, 3):
        write_gaussians(random_cloud(20, seed=seed), tmp_path / 'b.meta.json')
    assert torch.equal(read_gaussians(tmp_path / 'a.meta.json').means, first.means)
    assert not torch.equal(read_gaussians(tmp_path / 'b.meta.json').means, first.means)
    assert len(list(tmp_path.iterdir())) == 2 * 6  # what seed 2 left is deleted


def test_an_object_written_again_keeps_its_files(random_cloud, tmp_path):
    write_gaussians(random_cloud(20), tmp_path / sog.META)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_gaussians(random_cloud(20), tmp_path / sog.META)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


WRITE = textwrap.dedent('''
    import sys
    from pathlib import Path
    from clipgs_plugin.io.files import write_whole
    def parts():
        yield bytes(100_000)
        print('writing', flush=True)
        sys.stdin.read()
        yield b'end'
    write_whole(Path(sys.argv[1]), parts())
''')


def writer(path) -> subprocess.Popen:
    """Start a process that stays in the middle of a write until its stdin is closed."""
    process = subprocess.Popen([sys.executable, '-c', WRITE, str(path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'writing\n'
    return process


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows locks no files here')
def test_what_a_killed_write_leaves_is_cleared_by_the_next_one(tmp_path):
    path = tmp_path / 'a.bin'
    process = writer(path)
    process.kill()
    process.wait()
    assert len(list(tmp_path.iterdir())) == 1 and not path.exists()
    write_whole(path, [b'whole'])
    assert path.read_bytes() == b'whole' and list(tmp_path.iterdir()) == [path]


def test_a_write_does_not_disturb_another_one_of_the_same_name(tmp_path):
    path = tmp_path / 'a.bin'
    process = writer(path)
    write_whole(path, [b'mine'])
    assert path.read_bytes() == b'mine'
    process.stdin.close()
    assert process.wait() == 0
    assert path.read_bytes() == bytes(100_000) + b'end' and list(tmp_path.iterdir()) == [path]
