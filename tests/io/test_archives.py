"""Members of archives by offset, and the index that is kept."""
import io
import json
import os
import tarfile
import zipfile
from contextlib import contextmanager

import pytest

from clipgs_plugin.io import archives
from clipgs_plugin.io.archives import INDEX, list_places, read_from_tar_gz

CONTENT = {'a/one.txt': b'first' * 100, 'a/two.txt': b'', 'b/three.txt': os.urandom(999), 'b/four.bin': b'x'}


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'set'
    (root / 'plain').mkdir(parents=True)
    (root / 'plain' / 'zero.txt').write_bytes(b'zero')
    for name, method in (('stored.zip', zipfile.ZIP_STORED), ('deflated.zip', zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(root / name, 'w', method) as archive:
            for member, data in CONTENT.items():
                archive.writestr(member, data)
    for member, data in CONTENT.items():
        path = tmp_path / 'loose' / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with tarfile.open(root / 'plain' / 'some.tar', 'w') as archive:
        archive.add(tmp_path / 'loose', 'loose')
    return root


def text(name):
    return name.endswith('.txt')


def test_every_file_is_read_where_it_lies(root):
    expected = {'plain/zero.txt': b'zero'}
    for archive in ('stored.zip/', 'deflated.zip/', 'plain/some.tar/loose/'):
        expected.update({archive + name: data for name, data in CONTENT.items() if text(name)})
    places = list_places(root, text)
    assert [place.name for place in places] == sorted(expected)
    assert {place.name: place.read() for place in places} == expected
    one = list_places(root / 'stored.zip', text)
    assert [place.read() for place in one] == [CONTENT[name] for name in sorted(CONTENT) if text(name)]


def test_the_index_is_built_once_and_renewed_for_a_changed_archive(root, monkeypatch):
    listed = []
    members = archives._members
    monkeypatch.setattr(archives, '_members', lambda path, show: listed.append(path.name) or members(path, show))
    first = list_places(root, text)
    assert sorted(listed) == ['deflated.zip', 'some.tar', 'stored.zip'] and (root / INDEX).is_file()
    assert list_places(root, text) == first and len(listed) == 3
    assert len(list_places(root, lambda name: name.endswith('.bin'))) == 3 and len(listed) == 3
    with zipfile.ZipFile(root / 'stored.zip', 'a') as archive:
        archive.writestr('new.txt', b'new')
    assert {place.name: place for place in list_places(root, text)}['stored.zip/new.txt'].read() == b'new'
    assert listed[3:] == ['stored.zip']
    (root / INDEX).write_text('{"version": 1, "archives": {"stored.zip": 3}}')
    assert len(list_places(root, text)) == len(first) + 1 and len(listed) == 7


def test_the_index_of_a_set_that_cannot_be_written_lies_in_the_cache(root, tmp_path, monkeypatch):
    write = archives.write_whole

    def refuse(path, parts):
        if path.parent == root:
            raise PermissionError(13, 'Permission denied', str(path))
        write(path, parts)
    monkeypatch.setattr(archives, 'write_whole', refuse)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = list_places(root, text)
    index, = (tmp_path / 'cache').rglob('*.json')
    assert set(json.loads(index.read_text())['archives']) == {'stored.zip', 'deflated.zip', 'plain/some.tar'}
    monkeypatch.setattr(archives, '_members', None)
    assert list_places(root, text) == first and not (root / INDEX).exists()


def test_damage_is_named(root):
    places = {place.name: place for place in list_places(root, text)}
    for name in ('stored.zip', 'deflated.zip'):
        place = places[f'{name}/a/one.txt']
        data = bytearray((root / name).read_bytes())
        data[place.offset + 30 + len('a/one.txt') + 3] ^= 255
        (root / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf'{name}: {name}/a/one.txt cannot be read'):
            place.read()
    (root / 'plain' / 'some.tar').write_bytes(b'short')
    with pytest.raises(ValueError, match=r'some.tar.* cannot be read \(it ends at byte'):
        places['plain/some.tar/loose/a/one.txt'].read()
    (root / 'stored.zip').write_bytes(b'PK no zip')
    with pytest.raises(ValueError, match=r'stored\.zip: damaged or no archive'):
        list_places(root, text)
    with pytest.raises(FileNotFoundError, match='absent does not exist; name the folder of the set'):
        list_places(root / 'absent', text)


def test_an_index_that_promises_more_than_a_member_holds_is_refused(root):
    list_places(root, text)
    index = json.loads((root / INDEX).read_text())
    for row in index['archives']['deflated.zip']['members']:
        row[3] = 10 ** 12
    (root / INDEX).write_text(json.dumps(index))
    place = next(place for place in list_places(root, text) if place.name == 'deflated.zip/a/one.txt')
    with pytest.raises(ValueError, match='holds 1000000000000 bytes of'):
        place.read()


def write_tar(path, sizes):
    with tarfile.open(path, 'w') as archive:
        for i, size in enumerate(sizes):
            item = tarfile.TarInfo(f'{i}.txt')
            item.size = size
            archive.addfile(item, io.BytesIO(bytes([i + 1]) * size))


def test_a_large_tar_shows_the_bytes_that_are_listed(tmp_path, monkeypatch):
    write_tar(tmp_path / 'one.tar', [3000] * 20)
    write_tar(tmp_path / 'two.tar', [100])
    size = (tmp_path / 'one.tar').stat().st_size
    seen, show = [], archives._progress

    @contextmanager
    def recorded(title, total):
        with show(title, total) as update:
            yield lambda done: seen.append((done, total)) or update(done)
    monkeypatch.setattr(archives, '_progress', recorded)
    monkeypatch.setattr(archives, 'SHOWN_BYTES', 10_000)
    assert len(list_places(tmp_path, text)) == 21
    total = size + (tmp_path / 'two.tar').stat().st_size
    assert {each for _, each in seen} == {total}
    # 512 bytes of header and six blocks a member: three members pass 10,000 bytes.
    assert [done for done, _ in seen] == [*range(10752, 20 * 3584, 10752), size, total]


def test_a_tar_that_is_damaged_or_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / 'a.tar'
    write_tar(path, [3000] * 4)
    whole = path.read_bytes()
    for cut in (3584 + 100, 3584 + 512 + 100, 3 * 3584 - 1):  # in a header, in data, in padding
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r'a\.tar: damaged or no archive|a\.tar: \S+ lies beyond'):
            list_places(tmp_path, text)
    path.write_bytes(whole[:3584 + 20] + b'\xff' + whole[3584 + 21:])
    with pytest.raises(ValueError, match=r'a\.tar: damaged or no archive \(the header at byte 3584 is damaged'):
        list_places(tmp_path, text)


def test_small_compressed_tars(tmp_path):
    (tmp_path / 'x.ply').write_bytes(b'content')
    with tarfile.open(tmp_path / 'a.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'x.ply', '17/x.ply')
    assert read_from_tar_gz(tmp_path / 'a.tar.gz', 'x.ply') == b'content'
    with pytest.raises(ValueError, match=r'a\.tar\.gz: lacks y\.ply'):
        read_from_tar_gz(tmp_path / 'a.tar.gz', 'y.ply')
    (tmp_path / 'b.tar.gz').write_bytes((tmp_path / 'a.tar.gz').read_bytes()[:40])
    with pytest.raises(ValueError, match=r'b\.tar\.gz: damaged'):
        read_from_tar_gz(tmp_path / 'b.tar.gz', 'x.ply')


@pytest.mark.parametrize(('column', 'value'), [(1, -5), (2, -1), (3, -1), (1, 10 ** 9)])
def test_an_index_of_impossible_places_is_built_anew(root, column, value):
    before = list_places(root, text)
    index = json.loads((root / INDEX).read_text())
    for entry in index['archives'].values():
        for row in entry['members']:
            row[column] = value
    (root / INDEX).write_text(json.dumps(index))
    assert list_places(root, text) == before
