"""Gaussians in glTF: values, frames, transforms of nodes and colour spaces, in numbers and in pictures."""
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_plugin import ops, read_gaussians, write_gaussians
from clipgs_plugin.io import find_splats, gltf
from clipgs_plugin.ops.rotations import y_rotation
from clipgs_plugin.ops.spherical_harmonics import eval_sh

KHR = 'KHR_gaussian_splatting'
SPZ = 'KHR_gaussian_splatting_compression_spz_2'
TO_GLTF = torch.diag(torch.tensor([-1.0, -1, 1], dtype=torch.float64))  # the INRIA frame is left, up, forward after it


def parts(path: Path) -> tuple[dict, bytes]:
    """Return the JSON and the binary chunk of a .glb."""
    data = path.read_bytes()
    size, = struct.unpack_from('<I', data, 12)
    return json.loads(data[20:20 + size]), data[28 + size:]


def edit(path: Path, change) -> Path:
    """Change the JSON of a .glb."""
    document, binary = parts(path)
    change(document)
    document.pop('buffers')
    path.write_bytes(b''.join(gltf.write_parts(document, binary, binary=True)))
    return path


def with_nodes(path: Path, nodes) -> Path:
    return edit(path, lambda document: document.update(nodes=nodes, scenes=[dict(nodes=[0])]))


def render(cloud, size: int = 64):
    """Render two views of objects in the unit sphere."""
    eyes = torch.tensor([[0.5, -0.4, -3.5], [-3.0, 1.0, 1.0]])
    intrinsics = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]).expand(2, 3, 3)
    return ops.render(cloud, ops.look_at(eyes, torch.zeros(3), up='-y'), intrinsics, size, size)[0]


@pytest.mark.parametrize('name', ['camera.ply', 'fruit_drops_sh3.ply'])
def test_real_gaussians_keep_their_bits_and_their_picture(splats, tmp_path, name):
    cloud = read_gaussians(splats / name)
    for file in ('a.glb', 'a.gltf'):
        write_gaussians(cloud, tmp_path / file)
        back = read_gaussians(tmp_path / file)
        assert torch.equal(back.means, cloud.means) and torch.equal(back.sh, cloud.sh)
        assert torch.allclose(back.log_scales, cloud.log_scales, rtol=2e-7, atol=2e-7)
        assert (back.opacities - cloud.opacities).abs().max() <= 2e-7
        assert torch.allclose(back.rotations, cloud.rotations, atol=1e-6)
    assert (render(back.normalise()) - render(cloud.normalise())).abs().max() < 1e-4


@pytest.mark.parametrize('degree', range(4))
def test_the_attributes_are_those_of_the_extension(random_cloud, tmp_path, degree):
    cloud = random_cloud(5, sh_degree=degree)
    write_gaussians(cloud, tmp_path / 'a.glb')
    document, binary = parts(tmp_path / 'a.glb')
    primitive, = document['meshes'][0]['primitives']
    assert primitive['mode'] == 0 and document['extensionsUsed'] == [KHR] and 'extensionsRequired' not in document
    assert primitive['extensions'] == {KHR: dict(kernel='ellipse', colorSpace='srgb_rec709_display')}

    def values(name, width):
        accessor = document['accessors'][primitive['attributes'][name]]
        view = document['bufferViews'][accessor['bufferView']]
        assert accessor['componentType'] == 5126 and accessor['type'] == {1: 'SCALAR', 3: 'VEC3', 4: 'VEC4'}[width]
        return torch.from_numpy(np.frombuffer(binary, '<f4', 5 * width, view['byteOffset']).reshape(5, width).copy())

    sign = TO_GLTF.diagonal().float()
    assert torch.equal(values('POSITION', 3), cloud.means * sign)
    position = document['accessors'][primitive['attributes']['POSITION']]
    assert position['min'] == (cloud.means * sign).amin(0).tolist()
    assert torch.allclose(values(f'{KHR}:SCALE', 3), cloud.log_scales.exp())
    assert torch.allclose(values(f'{KHR}:OPACITY', 1)[:, 0], cloud.opacity_logits.sigmoid())
    xyzw = values(f'{KHR}:ROTATION', 4)
    assert torch.allclose(xyzw.norm(dim=1), torch.ones(5))
    written = cloud.replace(quats=xyzw[:, [3, 0, 1, 2]])
    turned = TO_GLTF.float() @ cloud.covariances @ TO_GLTF.float()
    assert torch.allclose(written.covariances, turned, atol=1e-7)
    bands = [(d, n) for d in range(degree + 1) for n in range(2 * d + 1)]
    sh = torch.stack([values(f'{KHR}:SH_DEGREE_{d}_COEF_{n}', 3) for d, n in bands], 1)
    direction = torch.nn.functional.normalize(torch.tensor([0.3, -0.5, 0.8]), dim=0)
    assert torch.allclose(eval_sh(sh, TO_GLTF.float() @ direction), eval_sh(cloud.sh, direction), atol=1e-6)


def test_integers_and_spz_keep_the_picture(splats, tmp_path):
    cloud = read_gaussians(splats / 'fruit_drops_sh3.ply').normalise()
    write_gaussians(cloud, tmp_path / 'a.glb')
    sizes, errors = [(tmp_path / 'a.glb').stat().st_size], []
    for encoding in ('integer', 'spz'):
        write_gaussians(cloud, tmp_path / 'a.glb', encoding=encoding)
        sizes.append((tmp_path / 'a.glb').stat().st_size)
        errors.append((render(read_gaussians(tmp_path / 'a.glb')) - render(cloud)).abs().max())
    assert errors[0] < 5e-3 and errors[1] < 0.2 and sizes[0] > sizes[1] > 5 * sizes[2]


def test_spz_inside_gltf_is_the_spz_file(random_cloud, tmp_path):
    cloud = random_cloud(30, sh_degree=2)
    write_gaussians(cloud, tmp_path / 'a.spz', version=2)
    write_gaussians(cloud, tmp_path / 'a.glb', encoding='spz')
    document, binary = parts(tmp_path / 'a.glb')
    extension = document['meshes'][0]['primitives'][0]['extensions'][KHR]['extensions'][SPZ]
    view = document['bufferViews'][extension['bufferView']]
    assert binary[:view['byteLength']] == (tmp_path / 'a.spz').read_bytes()
    assert document['extensionsRequired'] == [KHR, SPZ]
    expected, found = read_gaussians(tmp_path / 'a.spz'), read_gaussians(tmp_path / 'a.glb')
    assert all(torch.equal(x, getattr(expected, name)) for name, x in found.fields())


def expected_under(cloud, linear, offset, rotation):
    """Return means, covariances and colours along turned directions of a cloud under a matrix in glTF's axes."""
    linear, rotation = TO_GLTF @ linear @ TO_GLTF, TO_GLTF @ rotation @ TO_GLTF
    means = cloud.means.double() @ linear.T + TO_GLTF @ offset
    covariances = linear @ cloud.to(torch.float64).covariances @ linear.T
    directions = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64), dim=1)
    colors = eval_sh(cloud.sh.double()[:, None], directions)
    return means, covariances, directions @ rotation.T, colors


@pytest.mark.parametrize('scale', [[1, 1, 1], [2.5, 2.5, 2.5], [0.5, 2, 1]])
def test_nodes_move_turn_and_stretch_the_gaussians_and_their_colours(random_cloud, tmp_path, scale):
    cloud = random_cloud(40, sh_degree=3)
    cloud = cloud.replace(log_scales=cloud.log_scales + torch.randn(40, 3))
    write_gaussians(cloud, tmp_path / 'a.glb')
    quat = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 0.6, 0.5], dtype=torch.float64), dim=0)  # xyzw
    nodes = [dict(children=[1], translation=[1, 2, 3]),
             dict(mesh=0, rotation=quat.tolist(), scale=scale, translation=[0.5, 0, -1])]
    found = read_gaussians(with_nodes(tmp_path / 'a.glb', nodes)).to(torch.float64)
    rotation = ops.quaternion_to_matrix(quat[[3, 0, 1, 2]])
    linear = rotation @ torch.diag(torch.tensor(scale, dtype=torch.float64))
    means, covariances, directions, colors = expected_under(
        cloud, linear, torch.tensor([1.5, 2, 2], dtype=torch.float64), rotation)
    assert torch.allclose(found.means, means, atol=1e-5)
    assert torch.allclose(found.covariances, covariances, atol=1e-6)
    assert torch.allclose(eval_sh(found.sh[:, None], directions), colors, atol=1e-5)
    assert torch.equal(found.opacity_logits.float(), read_gaussians(
        with_nodes(tmp_path / 'a.glb', [dict(mesh=0)])).opacity_logits)


def test_a_turned_node_seen_by_a_turned_camera_gives_the_same_picture(random_cloud, tmp_path):
    cloud = random_cloud(60, sh_degree=3)
    write_gaussians(cloud, tmp_path / 'a.glb')
    angle = 0.7
    nodes = [dict(mesh=0, rotation=[0, math.sin(angle / 2), 0, math.cos(angle / 2)])]  # about the up axis y of glTF
    turned = read_gaussians(with_nodes(tmp_path / 'a.glb', nodes))
    back = TO_GLTF @ y_rotation(-angle) @ TO_GLTF
    view = ops.look_at(torch.tensor([[0.5, -0.4, -3.5]]), torch.zeros(3), up='-y')
    intrinsics = torch.tensor([[[64, 0, 32], [0, 64, 32], [0, 0, 1.0]]])
    moved = view.clone()
    moved[:, :3, :3] = view[:, :3, :3] @ back.float()
    expected = ops.render(cloud, view, intrinsics, 64, 64)[0]
    assert torch.allclose(ops.render(turned, moved, intrinsics, 64, 64)[0], expected, atol=1e-4)
    assert not torch.allclose(ops.render(turned, view, intrinsics, 64, 64)[0], expected, atol=0.05)


@pytest.mark.parametrize('node', [
    dict(scale=[-1, 1, 1]), dict(scale=[-1, -1, -1]), dict(scale=[0, 1, 1]), dict(scale=[1e-300, 1, 1]),
    dict(matrix=[1, 0, 0, 0, 0.5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]),
    dict(matrix=[1, 0, 0, 0.5, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])])
def test_nodes_that_mirror_shear_or_flatten_are_refused(random_cloud, tmp_path, node):
    write_gaussians(random_cloud(4), tmp_path / 'a.glb')
    with pytest.raises(ValueError, match=r'a\.glb: '):
        read_gaussians(with_nodes(tmp_path / 'a.glb', [dict(mesh=0, **node)]))


def test_primitives_and_instances_are_concatenated_with_the_highest_degree(random_cloud, tmp_path):
    cloud = random_cloud(7, sh_degree=2)
    write_gaussians(cloud, tmp_path / 'a.glb')

    def change(document):
        primitive, = document['meshes'][0]['primitives']
        plain = {name: index for name, index in primitive['attributes'].items() if '_DEGREE_1' not in name
                 and '_DEGREE_2' not in name}
        document['meshes'] = [dict(primitives=[primitive, dict(mode=4, attributes={})]),
                              dict(primitives=[{**primitive, 'attributes': plain}])]
        document.update(nodes=[dict(mesh=1, children=[1]), dict(mesh=0, translation=[0, 1, 0])],
                        scenes=[dict(nodes=[0])])
    found = read_gaussians(edit(tmp_path / 'a.glb', change))
    assert len(found) == 14 and found.sh_degree == 2
    assert torch.equal(found.sh[:7, 0], cloud.sh[:, 0]) and not found.sh[:7, 1:].any()
    assert torch.allclose(found.means[7:], cloud.means - torch.tensor([0.0, 1, 0])) and torch.allclose(
        found.sh[7:], cloud.sh, atol=1e-6)


def test_linear_colours_are_converted_with_a_warning(random_cloud, tmp_path):
    cloud = random_cloud(20, sh_degree=0).replace(sh=(torch.rand(20, 1, 3) - 0.5) * 3)
    write_gaussians(cloud, tmp_path / 'a.glb', color_space='lin_rec709_display')
    document, binary = parts(tmp_path / 'a.glb')
    primitive, = document['meshes'][0]['primitives']
    view = document['bufferViews'][primitive['attributes'][f'{KHR}:SH_DEGREE_0_COEF_0']]
    linear = np.frombuffer(binary, '<f4', 60, view['byteOffset']).reshape(20, 3) * 0.28209479177387814 + 0.5
    srgb = (cloud.sh[:, 0] * 0.28209479177387814 + 0.5).numpy()
    expected = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clip(0) + 0.055) / 1.055) ** 2.4)
    assert linear == pytest.approx(expected, abs=1e-6)
    with pytest.warns(UserWarning, match=r'a\.glb: linear colours were converted to sRGB'):
        found = read_gaussians(tmp_path / 'a.glb')
    assert torch.allclose(found.sh, cloud.sh, atol=1e-5)


@pytest.mark.filterwarnings('ignore:.*linear colours')
def test_linear_harmonics_are_fitted(random_cloud, tmp_path):
    cloud = random_cloud(20, sh_degree=2)
    cloud = cloud.replace(sh=cloud.sh * 0.1)
    write_gaussians(cloud, tmp_path / 'a.glb', color_space='lin_rec709_display')
    assert torch.allclose(read_gaussians(tmp_path / 'a.glb').sh, cloud.sh, atol=0.01)


def damaged(**changes):
    def change(document):
        primitive, = document['meshes'][0]['primitives']
        extension = primitive['extensions'][KHR]
        for key, value in changes.items():
            if key == 'drop':
                del primitive['attributes'][value]
            elif key == 'swap':
                primitive['attributes'][value[0]] = primitive['attributes'][value[1]]
            elif key == 'mode':
                primitive['mode'] = value
            elif key == 'required':
                document['extensionsRequired'] = value
            else:
                extension[key] = value
    return change


@pytest.mark.parametrize('changes, message', [
    (dict(drop=f'{KHR}:SCALE'), 'lacks the attribute KHR_gaussian_splatting:SCALE'),
    (dict(drop=f'{KHR}:SH_DEGREE_1_COEF_1'), 'lacks the attribute .*SH_DEGREE_1_COEF_1'),
    (dict(swap=(f'{KHR}:ROTATION', 'POSITION')), 'ROTATION holds 9 elements of 3 values, expected 9 of 4'),
    (dict(swap=(f'{KHR}:SCALE', 'POSITION')), 'SCALE has negative values.* draft'),
    (dict(swap=(f'{KHR}:SH_DEGREE_4_COEF_0', 'POSITION')), 'degree 4'),
    (dict(mode=4), 'has mode 4'), (dict(kernel='box'), "kernel 'box'"), (dict(colorSpace='acescg'), "space 'acescg'"),
    (dict(kernel=3), 'kernel is 3'), (dict(extensions={SPZ: {}}), 'bufferView is missing'),
    (dict(extensions={SPZ: dict(bufferView=0)}), 'spz'),
    (dict(required=['EXT_meshopt_compression']), 'requires the extension EXT_meshopt_compression')])
def test_wrong_primitives_are_named(random_cloud, tmp_path, changes, message):
    write_gaussians(random_cloud(9, sh_degree=1), tmp_path / 'a.glb')
    with pytest.raises(ValueError, match=rf'a\.glb: .*{message}'):
        read_gaussians(edit(tmp_path / 'a.glb', damaged(**changes)))


def test_opacities_outside_their_range_are_refused(random_cloud, tmp_path):
    write_gaussians(random_cloud(9), tmp_path / 'a.glb')
    document, binary = parts(tmp_path / 'a.glb')
    attributes = document['meshes'][0]['primitives'][0]['attributes']
    start = document['bufferViews'][attributes[f'{KHR}:OPACITY']]['byteOffset']
    document.pop('buffers')
    binary = binary[:start] + struct.pack('<f', 1.5) + binary[start + 4:]
    (tmp_path / 'a.glb').write_bytes(b''.join(gltf.write_parts(document, binary, binary=True)))
    with pytest.raises(ValueError, match=r'a\.glb: .*OPACITY has values outside'):
        read_gaussians(tmp_path / 'a.glb')


def test_a_mesh_is_recognised(random_cloud, tmp_path):
    write_gaussians(random_cloud(9), tmp_path / 'a.glb')
    edit(tmp_path / 'a.glb', lambda document: document['meshes'][0]['primitives'][0].pop('extensions'))
    with pytest.raises(ValueError, match=r'a\.glb: holds a mesh or an empty scene, not Gaussians'):
        read_gaussians(tmp_path / 'a.glb')
    assert find_splats(tmp_path) == [], 'folders may hold meshes of the same suffix'


def test_many_instances_of_a_small_mesh_are_refused_before_they_are_read(random_cloud, tmp_path):
    write_gaussians(random_cloud(2000), tmp_path / 'a.glb')

    def change(document):
        document['nodes'] = [dict(mesh=0, translation=[i, 0, 0]) for i in range(400)]
        document['scenes'] = [dict(nodes=list(range(400)))]
    with pytest.raises(ValueError, match=r'a\.glb: its nodes promise Gaussians of'):
        read_gaussians(edit(tmp_path / 'a.glb', change))


def test_saturated_opacities_and_scales_keep_their_values(random_cloud, tmp_path):
    cloud = random_cloud(4).replace(opacity_logits=torch.tensor([-200.0, 40, -20, 9]),
                                    log_scales=torch.tensor([[-300.0, -100, 3]]).repeat(4, 1))
    write_gaussians(cloud, tmp_path / 'a.glb')
    once = read_gaussians(tmp_path / 'a.glb')
    assert torch.allclose(once.opacity_logits, torch.tensor([-104.0, 17.33, -20, 9]), atol=1e-3)
    write_gaussians(once, tmp_path / 'b.glb')
    assert (tmp_path / 'a.glb').read_bytes() == (tmp_path / 'b.glb').read_bytes()


def test_unknown_options_are_named(random_cloud, tmp_path):
    for options in (dict(encoding='half'), dict(color_space='srgb')):
        with pytest.raises(ValueError, match='expected one of'):
            write_gaussians(random_cloud(3), tmp_path / 'a.glb', **options)
