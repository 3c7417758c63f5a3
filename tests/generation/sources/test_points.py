import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from clipgs_plugin.generation.objects import Points
from clipgs_plugin.generation.sources import points
from clipgs_plugin.generation.sources.points import PointSource, read_points, surfels

XYZ = np.array([[0.5, -1, 2], [0.25, 3, -4], [1, 1, 1], [0, 0, 0.125]], np.float32)
RGB = np.array([[255, 0, 51], [0, 102, 0], [10, 20, 30], [255, 255, 255]], np.uint8)
NORMALS = np.array([[0, 0, 1], [0, -1, 0], [0.6, 0.8, 0], [-1, 0, 0]], np.float32)
COLORS = np.array([[1, 0, 0.2], [0, 0.4, 0], [10 / 255, 20 / 255, 30 / 255], [1, 1, 1]])


def check(points: Points, colors: bool = True, normals: bool = True) -> None:
    assert np.array_equal(points.positions, XYZ) and points.positions.dtype == np.float32
    for found, expected, present in ((points.colors, COLORS, colors), (points.normals, NORMALS, normals)):
        if present:
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, atol=1e-6)
        else:
            assert found is None


def ply_header(encoding: str, *properties: str, count: int = 4, after: str = '') -> bytes:
    lines = ['ply', f'format {encoding} 1.0', f'element vertex {count}', *(f'property {p}' for p in properties)]
    return ('\n'.join(lines) + f'\n{after}end_header\n').encode()


XYZ_PLY = ('float x', 'float y', 'float z')
FULL_PLY = (*XYZ_PLY, 'float nx', 'float ny', 'float nz', 'uchar red', 'uchar green', 'uchar blue')


def binary_ply(order: str = '<') -> bytes:
    return b''.join(struct.pack(order + '6f3B', *XYZ[i], *NORMALS[i], *RGB[i]) for i in range(4))


@pytest.mark.parametrize('order, encoding', [('<', 'binary_little_endian'), ('>', 'binary_big_endian')])
def test_binary_ply(tmp_path, order, encoding):
    path = tmp_path / 'a.ply'
    path.write_bytes(ply_header(encoding, *FULL_PLY) + binary_ply(order))
    check(read_points(path))


def test_ascii_ply_with_float_colours_and_doubles(tmp_path):
    path = tmp_path / 'a.ply'
    rows = '\n'.join(' '.join(map(str, [*XYZ[i], *COLORS[i]])) for i in range(4))
    path.write_bytes(ply_header('ascii', 'double x', 'double y', 'double z', 'float red', 'float green', 'float blue')
                     + rows.encode())
    check(read_points(path), normals=False)


def test_the_vertices_of_a_mesh_are_points(tmp_path):
    path = tmp_path / 'a.ply'
    faces = 'element face 1\nproperty list uchar int vertex_indices\n'
    path.write_bytes(ply_header('binary_little_endian', *FULL_PLY, after=faces) + binary_ply()
                     + struct.pack('<B3i', 3, 0, 1, 2))
    check(read_points(path))


def test_ply_written_by_another_library(tmp_path):
    trimesh = pytest.importorskip('trimesh')
    path = tmp_path / 'a.ply'
    trimesh.PointCloud(XYZ, colors=RGB).export(path)
    check(read_points(path), normals=False)


PCD = """# .PCD v0.7
VERSION 0.7
FIELDS x y z {rgb} normal_x normal_y normal_z _
SIZE 4 4 4 4 4 4 4 1
TYPE F F F {kind} F F F U
COUNT 1 1 1 1 1 1 1 3
WIDTH 4
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 4
DATA {data}
"""


def packed_rgb(kind: str) -> list:
    bits = [int(r) << 16 | int(g) << 8 | int(b) for r, g, b in RGB]
    return bits if kind == 'U' else [struct.unpack('<f', struct.pack('<I', value))[0] for value in bits]


@pytest.mark.parametrize('kind', ['F', 'U'])
@pytest.mark.parametrize('data', ['ascii', 'binary', 'binary_compressed'])
def test_pcd(tmp_path, kind, data):
    path = tmp_path / 'a.pcd'
    rgb = packed_rgb(kind)
    if data == 'ascii':
        body = '\n'.join(' '.join(repr(float(x)) if isinstance(x, (float, np.floating)) else str(x)
                                  for x in [*XYZ[i], rgb[i], *NORMALS[i], 7, 7, 7]) for i in range(4)).encode()
    else:
        code = '<3f' + ('f' if kind == 'F' else 'I') + '3f3B'
        rows = [struct.pack(code, *XYZ[i], rgb[i], *NORMALS[i], 7, 7, 7) for i in range(4)]
        body = b''.join(rows)
        if data == 'binary_compressed':  # field by field
            plain = b''.join(row[i:i + 4] for i in range(0, 28, 4) for row in rows)
            plain += b''.join(row[28:] for row in rows)
            # Literal runs, and the 12 padding bytes, all alike, as one literal and a reference into itself.
            head = plain[:-12]
            runs = b''.join(bytes([len(head[i:i + 32]) - 1]) + head[i:i + 32] for i in range(0, len(head), 32))
            packed = runs + bytes([0, 7]) + bytes([7 << 5, 11 - 2 - 7, 0])
            body = struct.pack('<II', len(packed), len(plain)) + packed
    path.write_bytes(PCD.format(rgb='rgb', kind=kind, data=data).encode() + body)
    check(read_points(path))


def test_pcd_headers_of_older_writers(tmp_path):
    """COUNT is optional, values may be separated by any white space, and the version is not checked."""
    rows = '\n'.join(f'{x}  {y}\t{z} ' for x, y, z in XYZ)
    (tmp_path / 'a.pcd').write_text(f'VERSION .5\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 4\nDATA ascii\n{rows}\n')
    check(read_points(tmp_path / 'a.pcd'), colors=False, normals=False)


@pytest.mark.parametrize('data', ['ascii', 'binary', 'binary_compressed'])
@pytest.mark.parametrize('old, new', [('POINTS 4', f'POINTS {10 ** 12}'), ('POINTS 4', f'POINTS {2 ** 62}'),
                                      ('1 3\n', f'1 {2 ** 40}\n'), ('1 3\n', f'1 {2 ** 28}\n')])
def test_pcd_headers_that_promise_too_much_are_refused(tmp_path, data, old, new):
    head = PCD.format(rgb='rgb', kind='U', data=data).replace(old, new)
    (tmp_path / 'a.pcd').write_bytes(head.encode() + struct.pack('<II', 4, 2 ** 32 - 1) + b'1 2 3 ' * 40)
    with pytest.raises(ValueError, match=r'a\.pcd: not a readable PCD file'):
        read_points(tmp_path / 'a.pcd')


def npy_header(descr: str, shape: str) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + '\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header.encode()


@pytest.mark.parametrize('descr, shape', [('|S0', '(-1,)'), ('|S0', '(4, 3)'), ('<f4', '(-1, 3)'),
                                          ('<f8', f'({2 ** 60}, 3)'), ('<f4', f'({2 ** 36}, 3)'), ('<f4', '(5, 3)')])
@pytest.mark.parametrize('ending', ['npy', 'npz'])
def test_array_headers_that_promise_too_much_are_refused_before_allocation(tmp_path, ending, descr, shape):
    """numpy allocates what a header promises, and an item of no bytes kills the process."""
    data, path = npy_header(descr, shape) + XYZ.tobytes(), tmp_path / f'a.{ending}'
    if ending == 'npz':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('points.npy', data)
    else:
        path.write_bytes(data)
    with pytest.raises(ValueError, match=f'a.{ending}.*its header promises .* the file holds 48 bytes'):
        read_points(path)
    assert len(PointSource().list(path)) == 1


def test_missing_points_of_an_organised_pcd_are_dropped(tmp_path):
    path = tmp_path / 'a.pcd'
    head = PCD.format(rgb='rgb', kind='U', data='ascii').replace('WIDTH 4', 'WIDTH 3').replace('HEIGHT 1', 'HEIGHT 2')
    rows = [[*XYZ[i], packed_rgb('U')[i], *NORMALS[i], 0, 0, 0] for i in range(4)]
    rows[2:2] = [['nan'] * 3 + [0, 'nan', 'nan', 'nan', 0, 0, 0]] * 2
    path.write_text(head.replace('POINTS 4', 'POINTS 6') + '\n'.join(' '.join(map(str, row)) for row in rows))
    check(read_points(path))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('names', [('points', 'colors', 'normals'), ('xyz', 'rgb', 'normal')])
def test_npz_of_one_cloud(tmp_path, save, names):
    save(tmp_path / 'a.npz', **dict(zip(names, (XYZ.astype(np.float64), RGB, NORMALS * 3))))
    check(read_points(tmp_path / 'a.npz'))
    listed, = PointSource().list(tmp_path)
    check(PointSource().load(listed))


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz_of_many_clouds(tmp_path, save):
    sets = np.stack([XYZ + i for i in range(5)]).astype(np.float16)
    save(tmp_path / 'test.npz', points=sets, colors=np.stack([RGB] * 5), labels=[1, 0, 1, 1, 0],
         names=['a/b', 'c d', 'e', 'f', 'g'], classes=['night_stand', 'bed'])
    source = PointSource(up='z')
    listed = source.list(tmp_path)
    assert [x.uid for x in listed] == ['a_b', 'c_d', 'e', 'f', 'g']
    assert [x.category for x in listed] == ['bed', 'night_stand', 'bed', 'bed', 'night_stand']
    assert {x.split for x in listed} == {'test'} and source.up == 'z'
    for i in (3, 0, 4):
        points = source.load(listed[i])
        assert np.array_equal(points.positions, XYZ + i)
        np.testing.assert_allclose(points.colors, COLORS, atol=1e-6)
    save(tmp_path / 'test.npz', points=sets + 1, names=['a/b', 'c d', 'e', 'f', 'g'])
    os.utime(tmp_path / 'test.npz', ns=(1, 1))
    assert np.array_equal(source.load(listed[2]).positions, XYZ + 3)  # of the file as it is now


@pytest.mark.parametrize('columns', [(), ('colors',), ('normals',), ('colors', 'normals'), ('normals', 'colors')])
@pytest.mark.parametrize('ending', ['.npy', '.xyz', '.txt', 'comma.xyz', 'units.npy'])
def test_tables_of_3_6_and_9_columns(tmp_path, columns, ending):
    parts = [XYZ, *(NORMALS if name == 'normals' else COLORS if 'units' in ending else RGB for name in columns)]
    table = np.concatenate(parts, axis=1)
    path = tmp_path / f'a{ending}'
    if path.suffix == '.npy':
        np.save(path, table)
    else:
        separator = ',' if 'comma' in ending else ' '
        rows = [separator.join(f'{x:.9g}' for x in row) for row in table]
        path.write_text('# x y z\n//X Y Z\n' + '\n'.join(rows) + '\n\n')
    check(read_points(path), 'colors' in columns, 'normals' in columns)


@pytest.mark.parametrize('colors', [
    RGB.astype(np.int64), RGB.astype(np.float32), (RGB.astype(np.uint16) * 257), COLORS, COLORS.astype(np.float16)])
def test_ranges_of_colours(tmp_path, colors):
    np.savez(tmp_path / 'a.npz', points=XYZ, colors=colors)
    np.testing.assert_allclose(read_points(tmp_path / 'a.npz').colors, COLORS, atol=5e-4)


@pytest.mark.parametrize('bad', [0.0, np.nan])
def test_normals_are_dropped_if_one_has_no_direction(tmp_path, bad):
    normals = NORMALS.copy()
    normals[1] = bad
    np.savez(tmp_path / 'a.npz', points=XYZ, normals=normals)
    check(read_points(tmp_path / 'a.npz'), colors=False, normals=False)


def with_nan() -> np.ndarray:
    table = XYZ.copy()
    table[1, 2] = np.nan
    return table


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def npy(array, **options):
    return lambda path: np.save(path, array, **options)


def npy_bytes(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def unclosed(data: bytes) -> bytes:
    """Remove a closing parenthesis from the header of an array."""
    assert data.count(b'(4, 3)') == 1
    return data.replace(b'(4, 3)', b'(4, 3 ')


def npz_bytes(**arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npz_with_wrong_offset(path):
    """Write an archive whose directory places a member before the file."""
    data = bytearray(npz_bytes(points=XYZ))
    data[-6:-2] = struct.pack('<I', struct.unpack('<I', data[-6:-2])[0] + 2000)
    path.write_bytes(data)


def broken_npz(path):
    np.savez_compressed(path, points=np.random.default_rng(0).normal(size=(50, 3)))
    data = bytearray(path.read_bytes())
    data[400] ^= 255
    path.write_bytes(data)


def cut_npz(path):
    np.savez(path, points=np.zeros((50, 3)))
    path.write_bytes(path.read_bytes()[:600])


PCD_PLAIN = PCD.format(rgb='rgb', kind='F', data='binary').encode()


@pytest.mark.parametrize('name, content, reason', [
    ('a.ply', b'', 'the file is empty'),
    ('a.ply', b'nonsense', 'not a PLY file'),
    ('a.ply', ply_header('binary_little_endian', *XYZ_PLY) + bytes(40), 'holds 3 .* truncated'),
    ('a.ply', ply_header('ascii', *XYZ_PLY) + b'1 2 3\n4 5 6\n', 'holds 2; it is probably truncated'),
    ('a.ply', ply_header('ascii', *XYZ_PLY, count=1) + b'1 2 nan\n', '1 of 1 points have a NaN'),
    ('a.ply', ply_header('ascii', *XYZ_PLY, count=0), 'holds no points'),
    ('a.ply', ply_header('ascii', 'float x', 'float y', count=1) + b'1 2\n', 'have x, y, expected x, y, z'),
    ('a.ply', ply_header('ascii', *XYZ_PLY, 'float f_dc_0', 'float opacity', count=1) + b'1 2 3 4 5', 'as a splat'),
    ('a.ply', ply_header('ascii', *XYZ_PLY, 'list uchar int tags', count=1) + b'1 2 3 0', 'no scalar properties'),
    ('a.pcd', b'nonsense', 'not a readable PCD file .its header does not end'),
    ('a.pcd', b'', 'the file is empty'),
    ('a.pcd', PCD_PLAIN + bytes(31 * 2), 'promises 4 points, the file holds 2; it is probably truncated'),
    ('a.pcd', PCD_PLAIN.replace(b'POINTS 4', b'POINTS many'), 'not a readable PCD file .invalid literal'),
    ('a.pcd', PCD_PLAIN.replace(b'COUNT 1 ', b'COUNT '), 'do not fit each other'),
    ('a.pcd', PCD_PLAIN.replace(b'x y z', b'a b c') + bytes(124), 'expected x, y, z'),
    ('a.pcd', PCD_PLAIN.replace(b'DATA binary', b'DATA zipped'), "DATA 'zipped'"),
    ('a.pcd', PCD_PLAIN.replace(b'binary', b'ascii') + b'1 2 3', 'promises 4 points, the file holds 0'),
    ('a.pcd', PCD_PLAIN.replace(b'binary', b'ascii') + b'1 2 x ' * 60, 'PCD file .*requires 10 columns'),
    ('a.pcd', PCD_PLAIN.replace(b'DATA binary', b'DATA binary_compressed') + bytes(6), 'unpack_from requires'),
    ('a.pcd', PCD_PLAIN.replace(b'DATA binary', b'DATA binary_compressed') + struct.pack('<IIB', 9, 124, 5) + b'abc',
     'packed points are damaged'),
    ('a.pcd', PCD_PLAIN.replace(b'DATA binary', b'DATA binary_compressed') + struct.pack('<IIBBB', 3, 124, 32, 9, 9),
     'not a readable PCD file .error in compressed data'),
    ('a.npz', b'PK nonsense', 'not an .npz archive'),
    ('a.npz', cut_npz, 'not an .npz archive'),
    ('a.npz', npz_with_wrong_offset, 'not an .npz archive|cannot be read'),
    ('a.npz', broken_npz, "array 'points' cannot be read"),
    ('a.npz', npz(vertex=XYZ), 'holds vertex, expected an array named points or xyz'),
    ('a.npz', npz(points=np.array([None, XYZ], object)), 'holds pickled objects'),
    ('a.npz', npz(points=with_nan()), '1 of 4 points have a NaN'),
    ('a.npz', npz(points=XYZ[:, :2]), r'shape \(4, 2\), expected N rows of 3, 6 or 9'),
    ('a.npz', npz(points=XYZ, colors=RGB[:3]), r'colors have shape \(3, 3\)'),
    ('a.npz', npz(points=XYZ, colors=RGB * 0 - 1.5), r'colours lie in -1.5..-1.5'),
    ('a.npz', npz(points=XYZ, colors=np.full((4, 3), np.nan)), 'colours lie in nan'),
    ('a.npz', npz(points=XYZ[:0]), 'holds no points'),
    ('a.npz', npz(points=XYZ.astype(str)), '<U'),
    ('a.npz', npz(points=XYZ[None], labels=[3], classes=['a']), r'do not all lie in 0\.\.0'),
    ('a.npz', npz(points=XYZ[None], names=['a', 'b']), r'names have shape \(2,\), expected \(1,\)'),
    ('a.npy', npy(np.array({'xyz': XYZ}, object), allow_pickle=True), 'holds pickled objects, which are not read'),
    ('a.npy', b'nonsense', 'not a .npy file of numbers'),
    ('a.npy', lambda path: path.write_bytes(unclosed(npy_bytes(XYZ))), 'not a .npy file of numbers'),
    ('a.npz', lambda path: path.write_bytes(unclosed(npz_bytes(points=XYZ))), "array 'points' cannot be read"),
    ('a.npy', npy(XYZ[:, :2]), '3, 6 or 9 numbers'),
    ('a.npy', npy(with_nan()), 'NaN'),
    ('a.npy', npy(np.concatenate([XYZ, COLORS, COLORS], axis=1)), 'neither the middle nor the last three of its 9'),
    ('a.xyz', b'\n# nothing\n', 'holds no points'),
    ('a.xyz', b'1 2 3\n4 5\n', 'not a table of numbers'),
    ('a.xyz', b'C 1 2 3\n', 'not a table of numbers'),
    ('a.xyz', b'1 2 3 4\n', '3, 6 or 9 numbers'),
    ('a.xyz', b'1 2 inf\n', 'infinite'),
    ('a.xyz', b'1 2 1e300\n', 'infinite'),
    ('a.xyz', b'1 2 3 300 0 0\n', 'colours lie in 0..300'),
    ('a.xyz', bytes(range(256)), 'not a table of numbers'),
    ('a.las', b'LASF', "unknown ending '.las' of a point cloud"),
])
def test_bad_files_are_refused_with_a_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    listed, = PointSource().list(path)  # listing a file never fails
    with pytest.raises(ValueError, match=reason) as error:
        PointSource().load(listed)
    assert str(path) in str(error.value)


@pytest.mark.parametrize('name', ['ply', 'pcd', 'npz', 'set.npz', 'npy', 'xyz'])
def test_clean_drops_points_with_nan(tmp_path, name):
    rows = [0, 1, -1, 2, 3]  # -1 becomes NaN
    xyz, rgb, normals = XYZ[rows], RGB[rows], NORMALS[rows]
    xyz[2] = [1, np.nan, 2]
    path = tmp_path / f'a.{name}'
    if name == 'ply':
        rows = [struct.pack('<6f3B', *p, *n, *c) for p, n, c in zip(xyz, normals, rgb)]
        path.write_bytes(ply_header('binary_little_endian', *FULL_PLY, count=5) + b''.join(rows))
    elif name == 'pcd':
        bits = packed_rgb('U')
        rows = [[*p, bits[i], *n, 0, 0, 0] for p, i, n in zip(xyz, rows, normals)]
        head = PCD.format(rgb='rgb', kind='U', data='ascii').replace('WIDTH 4', 'WIDTH 5').replace('S 4\n', 'S 5\n')
        path.write_text(head + '\n'.join(' '.join(map(str, row)) for row in rows))
    elif path.suffix == '.npz':
        wrap = np.stack if 'set' in name else np.concatenate
        np.savez(path, points=wrap([xyz]), colors=wrap([rgb]), normals=wrap([normals]))
    else:
        table = np.concatenate([xyz, rgb, normals], 1)
        np.save(path, table) if name == 'npy' else np.savetxt(path, table, fmt='%.9g')
    with pytest.raises(ValueError, match=r'1 of 5 points have a NaN or an infinite position; .* set clean=True'):
        PointSource().load(PointSource().list(path)[0])
    with pytest.warns(UserWarning, match=f'{path.name}.*: 1 of 5 points have a NaN .*; dropped'):
        check(PointSource(clean=True).load(PointSource().list(path)[0]))


def test_clean_refuses_a_cloud_without_valid_points(tmp_path):
    np.save(tmp_path / 'a.npy', np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match=r'3 of 3 points have a NaN or an infinite position; remove them$'):
        read_points(tmp_path / 'a.npy', clean=True)


def test_text_of_other_programs(tmp_path):
    rows = [f'{x:g};{y:g};{z:g}' for x, y, z in XYZ]
    (tmp_path / 'a.xyz').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(['//X;Y;Z', *rows, '', '# end']).encode())
    check(read_points(tmp_path / 'a.xyz'), colors=False, normals=False)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_points(tmp_path / 'a.ply')
    with pytest.raises(FileNotFoundError, match='no such file or folder'):
        PointSource().list(tmp_path / 'nowhere')


def write_xyz(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('1 2 3\n')


def test_folders_name_categories_and_splits(tmp_path):
    for name in ('chair/train/a.xyz', 'chair/test/a.xyz', 'bed/train/b.XYZ', 'bed/val.npy', '.hidden/c.xyz', '._d.xyz',
                 'notes.txt'):
        write_xyz(tmp_path / name)
    found = {x.uid: (x.category, x.split) for x in PointSource().list(tmp_path)}
    assert found == {'chair-train-a': ('chair', 'train'), 'chair-test-a': ('chair', 'test'),
                     'bed-train-b': ('bed', 'train'), 'bed-val': ('bed', 'val')}


def test_folders_of_single_objects_are_no_categories(tmp_path):
    for name in ('red_chair/points.xyz', 'blue_bed/points.xyz'):
        write_xyz(tmp_path / name)
    assert [(x.uid, x.category) for x in PointSource().list(tmp_path)] == [
        ('blue_bed-points', None), ('red_chair-points', None)]


def test_uids_are_distinct(tmp_path):
    for name in ('a.xyz', 'a.npy', 'a.b.xyz', 'c d.xyz', 'c_d.xyz', 'e.xyz'):
        write_xyz(tmp_path / name)
    uids = [x.uid for x in PointSource().list(tmp_path)]
    assert uids == ['a_b_xyz', 'a_npy', 'a_xyz', 'c_d_xyz', 'c_d_xyz_2', 'e']


def test_archives_of_one_folder_may_share_names(tmp_path):
    for name in ('one', 'two'):
        np.savez(tmp_path / f'{name}.npz', points=XYZ[None], names=['x'])
    assert [x.uid for x in PointSource().list(tmp_path)] == ['x_one', 'x_two']


def sphere(n: int) -> np.ndarray:
    i = np.arange(n)
    height = 1 - (2 * i + 1) / n
    angle = i * np.pi * (3 - 5 ** 0.5)
    ring = np.sqrt(1 - height ** 2)
    return np.stack([ring * np.cos(angle), height, ring * np.sin(angle)], axis=1)


def test_estimated_normals_of_a_sphere_point_outward():
    positions = (sphere(2000) * 2 + [5, -3, 1]).astype(np.float32)
    surface, origin = surfels(Points(positions), 500, seed=0)
    assert len(surface.positions) == 500
    outwards = (surface.positions - [5, -3, 1]) / 2
    assert ((surface.normals * outwards).sum(1)).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-6)
    assert (surface.colors == np.float32(0.4)).all()
    assert origin == dict(normals='estimated from 12 neighbours', colors='0.4 grey')


def test_estimated_normals_against_a_plain_loop():
    positions = np.random.default_rng(3).normal(size=(60, 3)).astype(np.float32)
    surface, _ = surfels(Points(positions), 100, seed=0)
    assert np.array_equal(surface.positions, positions)
    for point, normal in zip(positions.astype(np.float64), surface.normals):
        near = positions[np.argsort(((positions - point) ** 2).sum(1))[:12]].astype(np.float64)
        _, values, axes = np.linalg.svd(near - near.mean(0))
        assert values[2] < values[1]
        expected = axes[2] * np.sign(axes[2] @ (point - positions.astype(np.float64).mean(0)))
        np.testing.assert_allclose(normal, expected, atol=1e-4)


def test_normals_of_a_large_cloud_use_a_sample(monkeypatch):
    monkeypatch.setattr(points, 'MAX_CANDIDATES', 3000)
    positions = np.random.default_rng(0).permutation(sphere(20_000)) * 3
    positions *= 1 + np.random.default_rng(1).normal(size=(20_000, 1)) * 0.02  # noise as wide as neighbours are apart
    surface, origin = surfels(Points(positions.astype(np.float32)), 500, seed=0)
    outwards = surface.positions / np.linalg.norm(surface.positions, axis=1, keepdims=True)
    few = (surface.normals * outwards).sum(1)
    monkeypatch.setattr(points, 'MAX_CANDIDATES', 20_000)
    all_of_them = (surfels(Points(positions.astype(np.float32)), 500, seed=0)[0].normals * outwards).sum(1)
    assert np.median(few) > 0.98 > 0.97 > np.median(all_of_them)
    assert origin['normals'] == 'estimated from 12 neighbours'


def test_surfels_keep_colours_and_normals_and_depend_on_the_seed():
    rng = np.random.default_rng(0)
    points = Points(rng.normal(size=(50, 3)).astype(np.float32), rng.random((50, 3), np.float32),
                    sphere(50).astype(np.float32))
    first, origin = surfels(points, 20, seed=4)
    assert origin == dict(normals='file', colors='file')
    rows = [int(np.flatnonzero((points.positions == p).all(1))[0]) for p in first.positions]
    assert rows == sorted(set(rows)) and len(rows) == 20
    assert np.array_equal(first.colors, points.colors[rows]) and np.array_equal(first.normals, points.normals[rows])
    again, _ = surfels(points, 20, seed=4)
    other, _ = surfels(points, 20, seed=5)
    assert np.array_equal(first.positions, again.positions) and not np.array_equal(first.positions, other.positions)
    with pytest.raises(ValueError, match='count=0'):
        surfels(points, 0, seed=0)


@pytest.mark.parametrize('positions', [np.ones((1, 3)), np.ones((20, 3)), [[0, 0, 0], [0, 0, 1.0]],
                                       np.linspace(0, 1, 30)[:, None] * [1, 2, 3]],
                         ids=['single', 'all alike', 'two', 'collinear'])
def test_surfels_of_degenerate_clouds_have_unit_normals(positions):
    surface, _ = surfels(Points(np.asarray(positions, np.float32)), 100, seed=0)
    np.testing.assert_allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-6)


def test_modelnet10(data):
    source = PointSource(up='z')
    listed = source.list(data / 'modelnet10')
    assert len(listed) == len({x.uid for x in listed}) == 3991 + 908
    assert sum(x.split == 'test' for x in listed) == 908
    with np.load(data / 'modelnet10' / 'train.npz') as archive:
        points, names, labels, classes = (archive[key] for key in ('points', 'names', 'labels', 'classes'))
    train = [x for x in listed if x.split == 'train']
    for i in (0, 2000, 3990):
        assert train[i].uid == names[i] and train[i].category == classes[labels[i]]
        assert np.array_equal(source.load(train[i]).positions, points[i].astype(np.float32))


def test_an_archive_is_read_once(tmp_path):
    path = tmp_path / 'many.npz'
    np.savez(path, points=np.zeros((3, 4, 3), np.float32))
    before = points._read_archive.cache_info().misses
    for listed in PointSource().list(path):
        pickle.loads(pickle.dumps(PointSource())).load(listed)  # as a worker has a copy for every object
    assert points._read_archive.cache_info().misses == before + 1


@pytest.mark.parametrize('columns, message', [
    (dict(names=np.array([b'a', b'b'])), r'names are \|S1'),
    (dict(labels=np.array([0, 1]), classes=np.array('chair')), 'classes are .* of shape'),
    (dict(labels=np.array([0, 1]), classes=np.array([1.0, 2.0])), 'classes are float64')])
def test_names_and_classes_that_are_no_text_are_refused(tmp_path, columns, message):
    np.savez(tmp_path / 'set.npz', points=np.stack([XYZ] * 2), **columns)
    assert len(PointSource().list(tmp_path)) == 1
    with pytest.raises(ValueError, match=rf'set\.npz: {message}'):
        read_points(tmp_path / 'set.npz')


def test_an_archive_that_inflates_beyond_reason_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w', zipfile.ZIP_DEFLATED) as archive, \
            archive.open('points.npy', 'w') as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    with pytest.raises(ValueError, match=r'a\.npz: not an \.npz archive \(its .* promise 209715200 bytes'):
        read_points(tmp_path / 'a.npz')
