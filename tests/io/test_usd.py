"""OpenUSD scenes: prims, transforms, up axes and half floats, written by usd-core itself."""
import sys

import numpy as np
import pytest
import torch

from clipgs_plugin import ops, read_gaussians
from clipgs_plugin.io import usd, usd_prims

pytest.importorskip('pxr')


@pytest.fixture(autouse=True)
def same_process(request, monkeypatch):
    """Read in the process of the test, which is quicker, unless the test is about the other one."""
    def load(path):
        try:
            return usd_prims.load(str(path))
        except ValueError as error:
            raise ValueError(f'{path}: {error}') from None
    if 'process' not in request.node.name:
        monkeypatch.setattr(usd, '_load', load)


def define(stage, path, cloud, half=False, degree=None):
    """Define a splat prim with the values of a cloud."""
    from pxr import Gf, Sdf, Vt

    prim = stage.DefinePrim(path, usd_prims.TYPE)
    kinds = Sdf.ValueTypeNames
    vectors, quats, floats = (Vt.Vec3hArray, Vt.QuathArray, Vt.HalfArray) if half else (
        Vt.Vec3fArray, Vt.QuatfArray, Vt.FloatArray)
    types = (kinds.Point3hArray, kinds.QuathArray, kinds.Half3Array, kinds.HalfArray) if half else (
        kinds.Point3fArray, kinds.QuatfArray, kinds.Float3Array, kinds.FloatArray)
    number = np.float16 if half else np.float32
    quat = Gf.Quath if half else Gf.Quatf
    values = {'positions': (types[0], vectors.FromNumpy(cloud.means.numpy().astype(number))),
              'orientations': (types[1], quats([quat(*row) for row in cloud.quats.tolist()])),
              'scales': (types[2], vectors.FromNumpy(cloud.scales.numpy().astype(number))),
              'opacities': (types[3], floats.FromNumpy(cloud.opacities.numpy().astype(number))),
              'radiance:sphericalHarmonicsCoefficients': (
                  types[2], vectors.FromNumpy(cloud.sh.reshape(-1, 3).contiguous().numpy().astype(number)))}
    for name, (kind, value) in values.items():
        prim.CreateAttribute(name + 'h' * half, kind).Set(value)
    prim.CreateAttribute('radiance:sphericalHarmonicsDegree', kinds.Int).Set(
        cloud.sh_degree if degree is None else degree)
    return prim


def write(path, *clouds, up='Y', **options):
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, up)
    stage.DefinePrim('/World', 'Xform')
    prims = [define(stage, f'/World/Splat{i}', cloud, **options) for i, cloud in enumerate(clouds)]
    yield stage, prims
    stage.GetRootLayer().Export(str(path))


def simple(path, *clouds, **options):
    for _ in write(path, *clouds, **options):
        pass
    return path


@pytest.mark.parametrize('suffix', ['usda', 'usdc', 'usd'])
@pytest.mark.parametrize('up', ['Y', 'Z'])
def test_up_of_the_stage_becomes_up_of_a_splat_file(random_cloud, tmp_path, suffix, up):
    cloud = random_cloud(20, sh_degree=3)
    found = read_gaussians(simple(tmp_path / f'a.{suffix}', cloud, up=up))
    expected = cloud.transform(ops.axis_change(up.lower(), '-y'))
    assert torch.allclose(found.means, expected.means, atol=1e-6)
    assert torch.allclose(found.covariances, expected.covariances, atol=1e-7)
    assert torch.allclose(found.opacity_logits, cloud.opacity_logits, atol=1e-4)
    assert torch.allclose(found.sh, expected.sh, atol=1e-5)


def test_a_scene_seen_by_an_upright_camera_gives_the_picture_of_its_values(random_cloud, tmp_path):
    cloud = random_cloud(40, sh_degree=2)
    found = read_gaussians(simple(tmp_path / 'a.usdc', cloud))
    eye, intrinsics = torch.tensor([[1.0, 0.6, 3.2]]), torch.tensor([[[48, 0, 24], [0, 48, 24], [0, 0, 1.0]]])
    expected = ops.render(cloud, ops.look_at(eye, torch.zeros(3), up='y'), intrinsics, 48, 48)[0]
    turned = eye @ ops.axis_change('y', '-y').float().T
    assert torch.allclose(ops.render(found, ops.look_at(turned, torch.zeros(3), up='-y'), intrinsics, 48, 48)[0],
                          expected, atol=1e-4)


def test_half_floats_are_read(random_cloud, tmp_path):
    cloud = random_cloud(20, sh_degree=1)
    found = read_gaussians(simple(tmp_path / 'a.usdc', cloud, half=True)).transform(ops.axis_change('-y', 'y'))
    assert torch.allclose(found.means, cloud.means, atol=1e-3) and torch.allclose(found.sh, cloud.sh, atol=2e-3)
    assert torch.allclose(found.rotations, cloud.rotations, atol=5e-3)


def test_prims_are_placed_and_joined(random_cloud, tmp_path):
    from pxr import Gf, UsdGeom

    clouds = [random_cloud(4, sh_degree=0), random_cloud(6, seed=1, sh_degree=2)]
    for stage, prims in write(tmp_path / 'a.usda', *clouds):
        UsdGeom.Xformable(stage.GetPrimAtPath('/World')).AddTranslateOp().Set(Gf.Vec3d(1, 2, 3))
        UsdGeom.Xformable(prims[1]).AddRotateZOp().Set(90)
    found = read_gaussians(tmp_path / 'a.usda').transform(ops.axis_change('-y', 'y'))
    assert len(found) == 10 and found.sh_degree == 2
    offset = torch.tensor([1.0, 2, 3])
    turned = clouds[1].transform(torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), offset)
    assert torch.allclose(found.means, torch.cat([clouds[0].means + offset, turned.means]), atol=1e-5)
    assert torch.allclose(found[4:].covariances, turned.covariances, atol=1e-6)
    assert torch.allclose(found[4:].sh, turned.sh, atol=1e-5)


def test_degree_4_is_cut_with_a_warning(random_cloud, tmp_path):
    cloud = random_cloud(5, sh_degree=3)
    for _stage, prims in write(tmp_path / 'a.usda', cloud, degree=4):
        from pxr import Vt
        sh = torch.cat([cloud.sh, torch.ones(5, 9, 3)], 1).reshape(-1, 3).numpy()
        prims[0].GetAttribute('radiance:sphericalHarmonicsCoefficients').Set(Vt.Vec3fArray.FromNumpy(sh))
    with pytest.warns(UserWarning, match='degree 4 were cut to degree 3'):
        found = read_gaussians(tmp_path / 'a.usda').transform(ops.axis_change('-y', 'y'))
    assert torch.allclose(found.sh, cloud.sh, atol=1e-6)


@pytest.mark.parametrize('change, message', [
    (lambda stage, prim: prim.RemoveProperty('scales'), 'scales holds 0 elements'),
    (lambda stage, prim: prim.GetAttribute('opacities').Set([0.5] * 4), 'opacities holds 4 elements, expected 5'),
    (lambda stage, prim: prim.GetAttribute('opacities').Set([1.5] * 5), 'opacities outside'),
    (lambda stage, prim: prim.SetTypeName('Mesh'), 'holds no prim of type'),
    (lambda stage, prim: stage.GetRootLayer().subLayerPaths.append('other.usda'), 'refers to .*other.usda')])
def test_wrong_scenes_are_named(random_cloud, tmp_path, change, message):
    for stage, prims in write(tmp_path / 'a.usda', random_cloud(5)):
        change(stage, prims[0])
    with pytest.raises(ValueError, match=rf'a\.usda: .*{message}'):
        read_gaussians(tmp_path / 'a.usda')


def test_without_usd_core_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / 'a.usda').write_text('#usda 1.0\n')
    monkeypatch.setitem(sys.modules, 'pxr', None)
    with pytest.raises(ImportError, match=r'a\.usda: .* needs usd-core, the extra usd; pip install usd-core'):
        read_gaussians(tmp_path / 'a.usda')


def test_a_process_of_its_own_reads_the_file_and_its_death_is_an_error(random_cloud, tmp_path, monkeypatch):
    cloud = random_cloud(5)
    path = simple(tmp_path / 'a.usdc', cloud)
    assert torch.allclose(read_gaussians(path).transform(ops.axis_change('-y', 'y')).means, cloud.means, atol=1e-6)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'a\.usdc: damaged or not an OpenUSD file'):
        read_gaussians(path)
    (tmp_path / 'worker.py').write_text('import os; os.abort()')
    monkeypatch.setattr(usd_prims, '__file__', str(tmp_path / 'worker.py'))
    with pytest.raises(ValueError, match=r'a\.usdc: .*usd-core ended with -6'):
        read_gaussians(path)
