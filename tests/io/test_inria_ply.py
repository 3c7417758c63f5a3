import numpy as np
import plyfile
import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians

REAL = ['camera.ply', 'fruit_drops_sh3.ply', 'train_1000_sh3.ply', 'three_points.ply']


def by_plyfile(path) -> dict[str, np.ndarray]:
    """Return the fields of a cloud by a loop over the columns that plyfile reads."""
    vertex = plyfile.PlyData.read(path)['vertex']
    rest = sum(p.name.startswith('f_rest_') for p in vertex.properties)
    column = lambda *names: np.stack([np.asarray(vertex[n], np.float32) for n in names], axis=1)  # noqa: E731
    sh = np.zeros((vertex.count, rest // 3 + 1, 3), np.float32)
    for channel in range(3):
        sh[:, 0, channel] = vertex[f'f_dc_{channel}']
        for k in range(rest // 3):
            sh[:, k + 1, channel] = vertex[f'f_rest_{channel * (rest // 3) + k}']
    return dict(means=column('x', 'y', 'z'), quats=column('rot_0', 'rot_1', 'rot_2', 'rot_3'),
                log_scales=column('scale_0', 'scale_1', 'scale_2'), opacity_logits=column('opacity')[:, 0], sh=sh)


def assert_same_bits(cloud, fields):
    for name, value in cloud.fields():
        assert value.is_contiguous() and value.dtype == torch.float32
        np.testing.assert_array_equal(value.numpy().view(np.uint32), np.asarray(fields[name]).view(np.uint32), name)


@pytest.mark.parametrize('name', REAL)
def test_real_files_equal_those_read_by_plyfile(splats, name):
    cloud = read_gaussians(splats / name)
    assert cloud.sh_degree == 3
    assert_same_bits(cloud, by_plyfile(splats / name))


@pytest.mark.parametrize('name', REAL)
def test_real_files_keep_their_bits(splats, tmp_path, name):
    cloud = read_gaussians(splats / name)
    write_gaussians(cloud, tmp_path / 'again.ply')
    assert_same_bits(read_gaussians(tmp_path / 'again.ply'), dict(cloud.fields()))


def test_a_file_of_the_inria_code_keeps_its_bytes(splats, tmp_path):
    write_gaussians(read_gaussians(splats / 'train_1000_sh3.ply'), tmp_path / 'again.ply')
    assert (tmp_path / 'again.ply').read_bytes() == (splats / 'train_1000_sh3.ply').read_bytes()


@pytest.mark.parametrize('normals', [True, False])
@pytest.mark.parametrize('degree', [0, 1, 2, 3])
def test_every_degree_is_read_back_by_plyfile(random_cloud, tmp_path, degree, normals):
    cloud = random_cloud(7, sh_degree=degree)
    write_gaussians(cloud, tmp_path / 'cloud.ply', normals=normals)
    assert_same_bits(cloud, by_plyfile(tmp_path / 'cloud.ply'))
    assert_same_bits(read_gaussians(tmp_path / 'cloud.ply'), dict(cloud.fields()))
    assert ('nx' in plyfile.PlyData.read(tmp_path / 'cloud.ply')['vertex']) == normals


@pytest.mark.parametrize('form', ['shuffled', 'big endian', 'ascii', 'double', 'extra', 'second element', 'crlf'])
def test_other_encodings_give_the_same_gaussians(random_cloud, tmp_path, form):
    cloud = random_cloud(9, sh_degree=2)
    path = tmp_path / 'cloud.ply'
    write_gaussians(cloud, path)
    table = np.array(plyfile.PlyData.read(path)['vertex'].data)
    names, kind, options, others = list(table.dtype.names), 'f4', {}, []
    if form == 'shuffled':
        np.random.default_rng(0).shuffle(names)
    elif form == 'big endian':
        options = dict(byte_order='>')
    elif form == 'ascii':
        options = dict(text=True)
    elif form == 'double':
        kind = 'f8'
    elif form == 'second element':
        others = [plyfile.PlyElement.describe(np.zeros(3, [('fov', 'f4'), ('id', 'u1')]), 'camera')]
    if form == 'extra':
        other = np.zeros(9, [('segment', 'u1'), *((n, kind) for n in names[:5]), ('score', 'f8'),
                             *((n, kind) for n in names[5:])])
    else:
        other = np.zeros(9, [(n, kind) for n in names])
    for name in names:
        other[name] = table[name]
    plyfile.PlyData([plyfile.PlyElement.describe(other, 'vertex'), *others], **options).write(path)
    if form == 'crlf':
        head, end, body = path.read_bytes().partition(b'end_header\n')
        path.write_bytes((head + end).replace(b'\n', b'\r\n') + body)
    assert_same_bits(read_gaussians(path), dict(cloud.fields()))


def test_unusual_values_are_kept(random_cloud, tmp_path):
    cloud = random_cloud(3)
    cloud.means[0] = torch.tensor([-0.0, 1e-40, 1e18])
    cloud.quats[1] = torch.tensor([0.0, 0, 0, 1e-30])
    cloud.log_scales[2] = -200
    write_gaussians(cloud, tmp_path / 'odd.ply')
    assert_same_bits(read_gaussians(tmp_path / 'odd.ply'), dict(cloud.fields()))


def test_float64_and_gradients_are_written_as_float32(random_cloud, tmp_path):
    cloud = random_cloud(3, dtype=torch.float64)
    cloud.means.requires_grad_()
    write_gaussians(cloud, tmp_path / 'cloud.ply')
    assert_same_bits(read_gaussians(tmp_path / 'cloud.ply'), {n: v.detach().float() for n, v in cloud.fields()})
