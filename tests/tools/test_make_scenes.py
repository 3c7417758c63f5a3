"""The program that makes scenes, and the benchmark of the objects found in them."""
import json
import math
from dataclasses import replace

import pytest
import torch

from clipgs_plugin import GaussianCloud, write_gaussians
from clipgs_plugin.generation.scenes import TruthScene
from clipgs_plugin.structures import SH_C0
from clipgs_plugin.tools import make_scenes
from clipgs_plugin.tools.benchmarks import scene_truth
from clipgs_plugin.tools.benchmarks.scene_truth import (
    Found,
    Gallery,
    in_place,
    instance_figures,
    light_figures,
    near,
    recognition_figures,
    recolored,
)

TINY = ['--objects', '2', '--gaussians', '500', '--views', '4', '--pixels', '24', '--iterations', '2', '--renderer',
        'raycast', '--up', 'y']


@pytest.fixture
def meshes(tmp_path):
    """Three tetrahedra of different heights."""
    pytest.importorskip('embreex')
    for i in range(3):
        folder = tmp_path / 'meshes' / f'cone_{i}'
        folder.mkdir(parents=True)
        rows = [(0, 0, 0), (0.1, 0, 0), (0, 0.1 + 0.1 * i, 0), (0, 0, 0.1)]
        faces = [(1, 3, 2), (1, 2, 4), (1, 4, 3), (2, 3, 4)]
        (folder / 'model.obj').write_text('\n'.join([*('v {} {} {}'.format(*row) for row in rows),
                                                     *('f {} {} {}'.format(*face) for face in faces)]))
    return tmp_path / 'meshes'


@pytest.mark.filterwarnings('ignore')
def test_an_interrupted_run_resumes_and_other_settings_are_refused(meshes, tmp_path, capsys):
    out = tmp_path / 'scenes'
    arguments = [str(out), '--meshes', str(meshes), *TINY]
    assert make_scenes.main([*arguments, '--scenes', '1']) == 0
    first = (out / '0000' / 'scene.ply').stat()
    assert make_scenes.main([*arguments, '--scenes', '2']) == 0
    assert (out / '0000' / 'scene.ply').stat().st_mtime_ns == first.st_mtime_ns
    assert '1 scenes made' in capsys.readouterr().err.splitlines()[-1]
    record = json.loads((out / '0001' / 'scene.json').read_text())
    assert record['seed'] == [0, 1] and len({item['uid'] for item in record['objects']}) == 2
    with pytest.raises(ValueError, match='made with other seed'):
        make_scenes.main([*arguments, '--seed', '3'])
    with pytest.raises(SystemExit):
        make_scenes.main([*arguments, '--scenes', '0'])


def cloud_at(x: float, n: int) -> GaussianCloud:
    means = torch.tensor([[x, 0.0, 0.0]]).repeat(n, 1)
    return GaussianCloud(means, torch.tensor([[1.0, 0, 0, 0]]).repeat(n, 1), torch.full((n, 3), -3.0), torch.zeros(n),
                         torch.zeros(n, 1, 3))


def scene_of(labels: torch.Tensor, objects: list[dict]) -> TruthScene:
    """A scene in which the x of a Gaussian is its label."""
    cloud = cloud_at(0, len(labels))
    means = torch.stack([labels.float(), *torch.zeros(2, len(labels))], 1)
    return TruthScene(cloud.replace(means=means), labels, objects, {})


OBJECTS = [dict(id=i, uid=f'mesh_{i}', yaw_degrees=0.0, low=[i - 1.0, -1.0, -1.0], high=[i + 1.0, 1.0, 1.0])
           for i in (1, 2, 3)]


def found_of(labels: torch.Tensor) -> Found:
    truth = torch.arange(4).repeat_interleave(10)
    scene = scene_of(truth, OBJECTS)
    return Found(scene, labels, scene_truth.match_instances(labels, truth))


def direction_of_x(clouds):
    """Embed a cloud as the direction of its mean x, so that objects of one label are alike."""
    angles = torch.stack([cloud.means[:, 0].mean() for cloud in clouds])
    return torch.stack([angles.cos(), angles.sin()], 1)


class Stand(Gallery):
    """A gallery in which mesh_i alone has x = i."""

    def __init__(self):
        self.uids = [f'mesh_{i}' for i in range(1, 6)]
        self.embeddings = direction_of_x([self.alone(uid) for uid in self.uids])

    def alone(self, uid, seed=0):
        corners = torch.tensor([[0.0, -1, -1], [0, 1, 1], [-1, 0, 0], [1, 0, 0]])
        return cloud_at(float(uid[-1]), 4).replace(means=corners + torch.tensor([float(uid[-1]), 0, 0]))


def test_found_objects_are_counted_and_recognised():
    # Object 1 is found, 2 and 3 are found as one, the floor is found as an object.
    labels = torch.tensor([7, 1, 2, 2]).repeat_interleave(10)
    found = found_of(labels)
    sizes = [None if cloud is None else len(cloud) for cloud in found.found_objects()]
    assert sizes in ([10, 20, None], [10, None, 20])
    rows = {row.what: row for row in instance_figures([found.match], 'clusters')}
    assert rows['true objects found, IoU >= 0.5'].mean == pytest.approx(2 / 3)
    assert rows['found objects that are true'].mean == pytest.approx(2 / 3)
    assert rows['purity of found objects'].mean == pytest.approx((0 + 1 + 0.5) / 3)
    assert rows['IoU of true objects'].mean == pytest.approx((1 + 0.5 + 0) / 3)
    figures = {(row.what, row.way): row.mean for row in
               recognition_figures([found], Stand(), direction_of_x, 'clusters')}
    assert figures['top-1 of those there', 'in the scene, cut by truth'] == 1
    assert figures['cosine to the object alone', 'in the scene, cut by truth'] == pytest.approx(1)
    # The mean x of 2 and 3 is 2.5, where mesh_2 and mesh_3 tie, which counts against the right one.
    assert figures['top-1 of those there', 'in the scene, found by clusters'] == 0.5
    assert figures['top-5 of those there', 'in the scene, found by clusters'] == 1
    assert figures['top-1 of all', 'in the scene, found by clusters'] == pytest.approx(1 / 3)


def test_an_object_alone_takes_the_place_of_its_box():
    item = dict(yaw_degrees=90.0, low=[2.0, 0.0, 3.0], high=[3.0, 0.5, 5.0])
    alone = cloud_at(0, 2).replace(means=torch.tensor([[-0.5, -0.125, 0.25], [0.5, 0.125, -0.25]]))
    placed = in_place(alone, item)  # a quarter about y takes x to -z and z to x
    assert torch.allclose(placed.means, torch.tensor([[3.0, 0, 5], [2, 0.5, 3]]), atol=1e-5)
    assert torch.allclose(placed.log_scales - alone.log_scales, torch.full((2, 3), math.log(2)), atol=1e-5)


def test_controls_take_the_visible_part_or_the_colours():
    alone = cloud_at(0, 3).replace(means=torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]))
    shown = cloud_at(0, 2).replace(means=torch.tensor([[0.01, 0, 0], [1.9, 0, 0]]), sh=torch.tensor([[[1.0] * 3],
                                                                                                    [[2.0] * 3]]))
    assert near(alone, shown).means[:, 0].tolist() == [0]
    assert recolored(alone, shown).sh[:, 0, 0].tolist() == [1, 2, 2]
    assert len(near(alone, shown[:0])) == 3 and recolored(alone, shown[:0]) is alone


def test_light_of_half_is_a_stop_and_no_light_is_none(monkeypatch):
    found = found_of(torch.arange(4).repeat_interleave(10))
    monkeypatch.setattr(scene_truth, 'in_place', lambda cloud, item: cloud)
    for half, expected in ((0.5 ** (1 / 2.2), 1), (1.0, 0)):
        shade = torch.tensor([1.0, half]).repeat(20)[:, None]
        cloud = found.scene.cloud
        lit = cloud.replace(sh=((shade * 0.8 - 0.5) / SH_C0)[:, None].expand(-1, 1, 3))
        bare = cloud_at(0.0, 4).replace(sh=torch.full((4, 1, 3), 0.3 / SH_C0))
        monkeypatch.setattr(Stand, 'alone', lambda self, uid, seed=0, bare=bare: bare)
        gallery = Stand.__new__(Stand)
        alone, there, stops = light_figures([found._replace(scene=replace(found.scene, cloud=lit))], gallery)
        assert alone.mean == pytest.approx(0.8, abs=1e-4) and there.mean == pytest.approx(0.4 * (1 + half), abs=1e-4)
        assert stops.mean == pytest.approx(expected, abs=1e-3)


def test_the_true_labels_find_everything():
    found = found_of(scene_truth.SPLITS['labels'](None, torch.arange(4).repeat_interleave(10)))
    rows = instance_figures([found.match], 'labels')
    assert [row.mean for row in rows] == [1, 1, 1, 1]


def test_the_gallery_keeps_its_fits_and_asks_for_the_right_meshes(meshes, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_truth, 'fit', lambda mesh, start, settings, size, seed, renderer: cloud_at(seed, 5))
    gallery = Gallery(str(meshes), 'y', str(tmp_path / 'cache'), direction_of_x)
    assert gallery.uids == ['cone_0', 'cone_1', 'cone_2'] and len(list((tmp_path / 'cache').iterdir())) == 3
    assert float(gallery.alone('cone_1', seed=1).means[0, 0]) == 1
    file = next((tmp_path / 'cache').glob('cone_1-*'))
    write_gaussians(cloud_at(9.0, 5), file)
    assert 9 in {float(gallery.alone('cone_1', seed=seed).means[0, 0]) for seed in (0, 1)}
    with pytest.raises(ValueError, match=r'spoon.*name the folder'):
        gallery.alone('spoon')


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match='--split magic'):
        scene_truth.scene_truth(split='magic')
