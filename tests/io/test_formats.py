"""Splat files below a folder, found quickly and in the order of their paths."""
import os

import pytest
from conftest import random_cloud

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.io import find_splats, walk_splats


def test_files_come_in_the_order_of_their_paths(tmp_path):
    for name in ('b.ply', 'a/z.splat', 'a.ply', 'a/b/c.SPZ', 'a-1.ply', 'notes.txt', 'folder.ply/x.sog', '.hidden.ply'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'link.ply').symlink_to(tmp_path / 'b.ply')
    (tmp_path / 'broken.ply').symlink_to(tmp_path / 'absent')
    (tmp_path / 'loop').symlink_to(tmp_path)
    endings = ('.ply', '.splat', '.spz', '.sog')
    expected = sorted(path for path in tmp_path.rglob('*') if path.is_file() and path.name.lower().endswith(endings))
    assert find_splats(tmp_path) == expected and len(expected) == 8
    assert list(walk_splats(tmp_path)) == list(map(str, expected))


def test_a_folder_that_is_absent_has_no_files_or_is_an_error(tmp_path):
    assert find_splats(tmp_path / 'absent') == []
    with pytest.raises(FileNotFoundError, match='absent'):
        next(walk_splats(tmp_path / 'absent'))


def test_a_walk_reads_folders_as_it_goes(tmp_path):
    for i in range(3):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / 'a.ply').touch()
    walk = walk_splats(tmp_path)
    assert next(walk) == str(tmp_path / '0' / 'a.ply')
    os.remove(tmp_path / '2' / 'a.ply')
    assert list(walk) == [str(tmp_path / '1' / 'a.ply')]


@pytest.mark.parametrize('start', [b'PK', b'\x1f\x8b'])
def test_positions_that_begin_like_an_archive_do_not_make_a_splat_one(tmp_path, start):
    """A .splat begins with a position; of a million files, two bytes of a signature would refuse some thirty."""
    path = tmp_path / 'a.splat'
    write_gaussians(random_cloud(20), path)
    data = path.read_bytes()
    path.write_bytes(start + data[2:])
    assert len(read_gaussians(path)) == 20
