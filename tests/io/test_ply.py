import re
import tracemalloc

import numpy as np
import plyfile
import pytest

from clipgs_plugin.io import ply

VERTEX = np.array([(1, 2, 3.5), (4, 5, -6.25)], [('x', 'f4'), ('id', 'u1'), ('y', 'f8')])
FACE = np.array([([0, 1, 1],)], [('vertex_indices', 'i4', (3,))])


def write_by_plyfile(path, *elements, **options):
    described = [plyfile.PlyElement.describe(table, name) for name, table in elements]
    plyfile.PlyData(described, **options).write(path)


@pytest.mark.parametrize('options', [dict(text=True), dict(byte_order='<'), dict(byte_order='>')])
def test_elements_equal_those_of_plyfile(tmp_path, options):
    path = tmp_path / 'a.ply'
    write_by_plyfile(path, ('vertex', VERTEX), ('camera', VERTEX[:1]), **options)
    file = ply.open_ply(path)
    assert [(e.name, e.count, e.properties) for e in file.elements] == [
        ('vertex', 2, ('x', 'id', 'y')), ('camera', 1, ('x', 'id', 'y'))]
    expected = plyfile.PlyData.read(path)
    for name, table in file.read().items():
        assert table.tolist() == expected[name].data.tolist() == VERTEX[:len(table)].tolist()


@pytest.mark.parametrize('text', [False, True])
def test_reading_stops_at_the_first_list(tmp_path, text):
    write_by_plyfile(tmp_path / 'a.ply', ('vertex', VERTEX), ('face', FACE), ('camera', VERTEX), text=text)
    file = ply.open_ply(tmp_path / 'a.ply')
    assert 'face' in file and file['face'].dtype is None and file['face'].count == 1
    assert list(file.read()) == ['vertex']


def test_files_are_written_as_plyfile_writes_them(tmp_path):
    write_by_plyfile(tmp_path / 'a.ply', ('vertex', VERTEX), ('camera', VERTEX[:1]), byte_order='<')
    ply.write(tmp_path / 'b.ply', {'vertex': VERTEX, 'camera': VERTEX[:1]})
    assert (tmp_path / 'a.ply').read_bytes() == (tmp_path / 'b.ply').read_bytes()


@pytest.mark.parametrize('change', [
    lambda d: d.replace(b'element', 'comment von Jürgen\nelement'.encode(), 1),
    lambda d: d.replace(b'property', b'obj_info made elsewhere\nproperty', 1),
    lambda d: d.replace(b'element', b'\ncomment end_header\nelement', 1),
    lambda d: d.replace(b'\n', b'\r\n', 6),
    lambda d: d.replace(b'end_header', b'element empty 0\nend_header  ')],
    ids=['comment in utf-8', 'obj_info', 'comment end_header', 'crlf', 'element without properties'])
def test_unusual_headers_are_read(tmp_path, change):
    write_by_plyfile(tmp_path / 'a.ply', ('vertex', VERTEX), byte_order='<')
    data = (tmp_path / 'a.ply').read_bytes()
    (tmp_path / 'a.ply').write_bytes(change(data))
    assert ply.open_ply(tmp_path / 'a.ply').read()['vertex'].tolist() == VERTEX.tolist()


@pytest.fixture
def traced_memory():
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize('count', ['1099511627776', '9' * 18, '9' * 30, '9' * 5000, '1_0', '+2', '2.0'])
@pytest.mark.parametrize('text', [False, True])
def test_a_damaged_count_is_refused_without_allocation(tmp_path, traced_memory, count, text):
    path = tmp_path / 'a.ply'
    write_by_plyfile(path, ('vertex', VERTEX), text=text)
    path.write_bytes(path.read_bytes().replace(b'vertex 2', f'vertex {count}'.encode()))
    with pytest.raises(ValueError, match=rf'a.ply: (header promises|PLY header line .*) ?{re.escape(count[:60])}'):
        ply.open_ply(path).read()
    assert traced_memory() < 2 ** 20


@pytest.mark.parametrize('text', [False, True])
def test_a_damaged_count_of_lists_allocates_nothing(tmp_path, traced_memory, text):
    path = tmp_path / 'a.ply'
    write_by_plyfile(path, ('face', FACE), text=text)
    path.write_bytes(path.read_bytes().replace(b'face 1', b'face 1099511627776'))
    assert ply.open_ply(path).read() == {}
    assert traced_memory() < 2 ** 20


@pytest.mark.parametrize('before, after, message', [
    (b'double y', b'double x', 'two properties with same name'),
    (b'element camera', b'element vertex', 'two elements with same name'),
    (b'float x', 'float ä'.encode(), 'header'),
    (b'float x', b'list float', "header line 'property list float'"),
    (b'1.0', b'2.0', "header line 'format binary_little_endian 2.0'"),
    (b'format binary_little_endian 1.0\n', b'', "header line 'element vertex 2'"),
    (b'end_header\n', b'end_header', 'not a PLY file')])
def test_damaged_headers_name_the_file(tmp_path, before, after, message):
    path = tmp_path / 'a.ply'
    write_by_plyfile(path, ('vertex', VERTEX), ('camera', VERTEX), byte_order='<')
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    with pytest.raises(ValueError, match=f'a.ply: .*{message}'):
        ply.open_ply(path)


def test_damaged_header_bytes_are_read_or_raise_a_clear_error(tmp_path):
    path, rng = tmp_path / 'a.ply', np.random.default_rng(0)
    write_by_plyfile(path, ('vertex', VERTEX), ('face', FACE), byte_order='<')
    data = path.read_bytes()
    for _ in range(500):
        damaged = bytearray(data)
        for position in rng.integers(0, data.index(b'end_header') + 11, 2):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            ply.open_ply(path).read()
        except ValueError as error:
            assert str(path) in str(error)
