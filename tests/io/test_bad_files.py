"""Damaged files raise one clear error and never return an incomplete cloud."""
import gzip
import struct

import numpy as np
import plyfile
import pytest
import torch

from clipgs_plugin import io, read_gaussians, write_gaussians

PROPERTIES = ['x', 'y', 'z', 'f_dc_0', 'f_dc_1', 'f_dc_2', 'opacity', 'scale_0', 'scale_1', 'scale_2',
              'rot_0', 'rot_1', 'rot_2', 'rot_3']
WRITABLE = ['ply', 'compressed.ply', 'splat', 'spz', 'sog', 'glb', 'gltf']


def test_missing_file_folder_and_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.ply: the file does not exist'):
        read_gaussians(tmp_path / 'nowhere.ply')
    with pytest.raises(ValueError, match=r'a folder without meta\.json'):
        read_gaussians(tmp_path)
    for suffix in [*WRITABLE, 'ksplat', 'json']:
        (tmp_path / f'empty.{suffix}').touch()
        with pytest.raises(ValueError, match=f'empty.{suffix}: the file is empty'):
            read_gaussians(tmp_path / f'empty.{suffix}')


@pytest.mark.parametrize('suffix, options', [*((suffix, {}) for suffix in WRITABLE), ('spz', dict(version=4))])
def test_truncated_and_extended_files_are_refused(random_cloud, tmp_path, suffix, options):
    path = tmp_path / f'cloud.{suffix}'
    write_gaussians(random_cloud(40, sh_degree=1), path, **options)
    data = path.read_bytes()
    for cut in sorted({*range(1, 60), *range(60, len(data), max(1, len(data) // 40)), len(data) - 1}):
        if suffix == 'splat' and cut % 32 == 0:
            continue  # the format cannot detect it
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match=f'cloud.{suffix}: '):
            read_gaussians(path)
    if suffix != 'sog':  # a zip may be followed by a comment
        path.write_bytes(data + b'\0')
        with pytest.raises(ValueError, match=f'cloud.{suffix}: .*(follow|whole number|promises|not valid JSON)'):
            read_gaussians(path)


@pytest.mark.parametrize('suffix', WRITABLE)
def test_damaged_bytes_return_a_cloud_of_the_same_size_or_raise_a_clear_error(random_cloud, tmp_path, suffix):
    path = tmp_path / f'cloud.{suffix}'
    write_gaussians(random_cloud(40, sh_degree=1), path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert len(read_gaussians(path)) == 40
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize('field, column', [('means', 'x'), ('opacity_logits', 'opacity'), ('sh', 'f_rest_7'),
                                           ('log_scales', 'scale_2'), ('quats', 'rot_1')])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_named_and_counted_and_dropped_by_clean(
        random_cloud, tmp_path, field, column, value):
    path = tmp_path / 'cloud.ply'
    cloud = random_cloud(10, sh_degree=1)
    write_gaussians(cloud, path)
    file = plyfile.PlyData.read(path, mmap=False)
    file['vertex'].data[column][[2, 5]] = value
    file.write(path)
    with pytest.raises(ValueError, match=f'cloud.ply: {field} is NaN or infinite in 2 of 10 Gaussians'):
        read_gaussians(path)
    with pytest.warns(UserWarning, match='cloud.ply: dropped 2 of 10') as notes:
        left = read_gaussians(path, clean=True)
    assert notes[0].filename == __file__  # the line that asked for it
    assert torch.equal(left.means, cloud.means[[0, 1, 3, 4, 6, 7, 8, 9]])


def test_zero_quaternions_are_refused_and_an_empty_rest_is_an_error(random_cloud, tmp_path):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(4), path)
    file = plyfile.PlyData.read(path, mmap=False)
    for k in range(4):
        file['vertex'].data[f'rot_{k}'] = 0
    file.write(path)
    with pytest.raises(ValueError, match='quats are zero and define no rotation in 4 of 4'):
        read_gaussians(path)
    with pytest.warns(UserWarning, match='dropped 4 of 4'), pytest.raises(ValueError, match='holds no Gaussians'):
        read_gaussians(path, clean=True)


@pytest.mark.parametrize('missing', ['x', 'f_dc_1', 'opacity', 'scale_2', 'rot_0'])
def test_a_missing_property_is_named(random_cloud, tmp_path, missing):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(4), path)
    table = plyfile.PlyData.read(path, mmap=False)['vertex'].data
    rest = np.zeros(4, [(name, 'f4') for name in table.dtype.names if name != missing])
    plyfile.PlyData([plyfile.PlyElement.describe(rest, 'vertex')]).write(path)
    with pytest.raises(ValueError, match=f'cloud.ply: vertex lacks the property {missing} '):
        read_gaussians(path)


def test_a_wrong_number_of_sh_properties_is_named(random_cloud, tmp_path):
    write_gaussians(random_cloud(4, sh_degree=1), tmp_path / 'cloud.ply')
    data = (tmp_path / 'cloud.ply').read_bytes().replace(b'f_rest_8', b'f_reft_8')
    (tmp_path / 'cloud.ply').write_bytes(data)
    with pytest.raises(ValueError, match='8 f_rest properties'):
        read_gaussians(tmp_path / 'cloud.ply')


@pytest.mark.parametrize('text', [False, True])
def test_meshes_and_point_clouds_are_recognised(tmp_path, text):
    vertex = np.zeros(3, [('x', 'f4'), ('y', 'f4'), ('z', 'f4'), ('red', 'u1'), ('green', 'u1'), ('blue', 'u1')])
    face = np.zeros(1, [('vertex_indices', 'i4', (3,))])
    elements = [plyfile.PlyElement.describe(vertex, 'vertex'), plyfile.PlyElement.describe(face, 'face')]
    for name, parts in (('points.ply', elements[:1]), ('mesh.ply', elements), ('faces.ply', elements[1:])):
        plyfile.PlyData(parts, text=text).write(tmp_path / name)
        with pytest.raises(ValueError, match=f'{name}: holds a mesh or a point cloud, not Gaussians'):
            read_gaussians(tmp_path / name)


@pytest.mark.parametrize('count, message', [(11, 'promises 11 .* holds 10'), (9, 'bytes follow'), (0, 'bytes follow'),
                                            (-1, "'element vertex -1'"), ('ten', "'element vertex ten'")])
def test_a_wrong_count_in_the_header_is_named(random_cloud, tmp_path, count, message):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(10), path)
    path.write_bytes(path.read_bytes().replace(b'vertex 10', f'vertex {count}'.encode()))
    with pytest.raises(ValueError, match=message):
        read_gaussians(path)


def test_a_file_without_gaussians_is_refused(tmp_path):
    table = np.zeros(0, [(name, 'f4') for name in PROPERTIES])
    plyfile.PlyData([plyfile.PlyElement.describe(table, 'vertex')]).write(tmp_path / 'none.ply')
    with pytest.raises(ValueError, match=r'none\.ply: holds no Gaussians'):
        read_gaussians(tmp_path / 'none.ply')


@pytest.mark.parametrize('body, message', [
    (b'1 2 3 4 5 6 7 8 9 10 11 12 13', 'promises 1 .* holds 0'),
    (b'1 2 3 4 5 6 7 8 9 10 11 12 13 14 15', '1 values follow'),
    (b'1 2 3 4 5 6 7 8 9 10 eleven 12 13 14', 'a word that is not a number')])
def test_damaged_ascii_is_refused(tmp_path, body, message):
    head = '\n'.join(['ply', 'format ascii 1.0', 'element vertex 1', *(f'property float {n}' for n in PROPERTIES),
                      'end_header', '']).encode()
    (tmp_path / 'text.ply').write_bytes(head + body)
    with pytest.raises(ValueError, match=message):
        read_gaussians(tmp_path / 'text.ply')


@pytest.mark.parametrize('line', [b'format binary_middle_endian 1.0', b'property quad x', b'nonsense here', b'element'])
def test_an_invalid_header_line_is_quoted(random_cloud, tmp_path, line):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(4), path)
    head, rest = path.read_bytes().split(b'\n', 1)
    path.write_bytes(b'\n'.join([head, line, rest]))
    with pytest.raises(ValueError, match=f"header line '{line.decode()}'"):
        read_gaussians(path)


def test_unknown_suffix_lists_the_formats(random_cloud, tmp_path):
    (tmp_path / 'cloud.xyz').write_bytes(b'1 2 3\n')
    for call in (lambda: read_gaussians(tmp_path / 'cloud.xyz'),
                 lambda: write_gaussians(random_cloud(3), tmp_path / 'cloud.xyz')):
        with pytest.raises(ValueError, match=r'cloud.xyz: no splat format has this suffix; known are .*\.spz'):
            call()


@pytest.mark.parametrize('suffix', WRITABLE)
def test_the_signature_takes_precedence_over_the_suffix(random_cloud, tmp_path, suffix):
    write_gaussians(random_cloud(5), tmp_path / f'cloud.{suffix}')
    expected = read_gaussians(tmp_path / f'cloud.{suffix}')
    if suffix in ('splat', 'gltf'):  # no signature, so the suffix decides
        return
    for wrong in ('bin', 'splat', 'ply'):
        other = tmp_path / f'renamed.{wrong}'
        other.write_bytes((tmp_path / f'cloud.{suffix}').read_bytes())
        assert torch.equal(read_gaussians(other).means, expected.means)


@pytest.mark.parametrize('suffix', ['ply', 'spz', 'sog', 'json'])
def test_content_of_another_type_is_refused(tmp_path, suffix):
    path = tmp_path / f'cloud.{suffix}'
    path.write_bytes(b'<html>404 Not Found</html>')
    with pytest.raises(ValueError, match=str(path)):
        read_gaussians(path)


@pytest.mark.parametrize('change, message', [
    (lambda d: d.replace(b'NGSP', b'XXXX'), 'not a .spz header'),
    (lambda d: d[:4] + struct.pack('<I', 1) + d[8:], 'version 1, expected'),
    (lambda d: d[:8] + struct.pack('<I', 2 ** 31) + d[12:], 'promises 2147483648 Gaussians'),
    (lambda d: d[:8] + struct.pack('<I', 4) + d[12:], 'bytes follow'),
    (lambda d: d[:12] + b'\5' + d[13:], 'SH degree 5')])
def test_a_wrong_spz_header_is_named(random_cloud, tmp_path, change, message):
    path = tmp_path / 'cloud.spz'
    write_gaussians(random_cloud(5), path)
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))
    with pytest.raises(ValueError, match=message):
        read_gaussians(path)


def test_an_invalid_cloud_is_refused_by_every_writer(random_cloud, tmp_path):
    cloud = random_cloud(3)
    cloud.means[1, 1] = torch.nan
    for suffix in WRITABLE:
        with pytest.raises(ValueError, match=f'cloud for .*cloud.{suffix}: means is NaN'):
            write_gaussians(cloud, tmp_path / f'cloud.{suffix}')
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(random_cloud, tmp_path, monkeypatch):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(3, seed=1), path)
    before = path.read_bytes()

    def parts():
        yield b'half'
        raise RuntimeError('disk full')

    with pytest.raises(RuntimeError):
        io.files.write_whole(path, parts())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['cloud.ply']


def test_arrays_are_written_atomically_and_without_pickle(tmp_path):
    path = tmp_path / 'arrays.npz'
    io.files.write_npz(path, {'names': np.array(['a', 'bc']), 'values': np.arange(3.0)})
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays['names'].tolist() == ['a', 'bc'] and arrays['values'].tolist() == [0, 1, 2]
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"arrays.npz: 'label' holds \[None 3\]"):
        io.files.write_npz(path, {'values': np.zeros(1), 'label': np.array([None, 3])})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ['arrays.npz']


@pytest.mark.parametrize('suffix', WRITABLE)
def test_a_missing_output_folder_is_named(random_cloud, tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f'cloud.{suffix}: its folder does not exist'):
        write_gaussians(random_cloud(3), tmp_path / 'nowhere' / f'cloud.{suffix}')


def test_a_file_that_cannot_be_written_is_named_and_leaves_nothing(tmp_path):
    def full_disk():
        yield b'bytes'
        raise OSError(28, 'No space left on device')
    with pytest.raises(OSError) as error:
        io.files.write_whole(tmp_path / 'a', full_disk())
    assert error.value.filename == str(tmp_path / 'a') and not list(tmp_path.iterdir())


def test_a_checkpoint_is_not_taken_for_a_sog(tmp_path):
    torch.save(dict(state_dict=dict(weight=torch.zeros(3, 3))), tmp_path / 'model.pth')
    with pytest.raises(ValueError, match=r'model\.pth: a checkpoint with no Gaussians, expected means'):
        read_gaussians(tmp_path / 'model.pth')
