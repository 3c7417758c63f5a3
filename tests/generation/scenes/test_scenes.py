"""Made scenes: layout, light, truth, files."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clipgs_plugin.generation.objects import Listed, Mesh, MeshPart, Views
from clipgs_plugin.generation.rendering import choose_renderer
from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.generation.scenes import SceneSettings, make_scene, read_scene, scene_folders, truth, write_scene
from clipgs_plugin.generation.scenes.layout import GAP, place
from clipgs_plugin.generation.scenes.lighting import BOUNCE, Lamp, brightness, exposed, lit
from clipgs_plugin.generation.scenes.rays import Blockers
from clipgs_plugin.generation.scenes.room import HALF, make_room
from clipgs_plugin.generation.scenes.truth import area
from clipgs_plugin.io import ply, read_gaussians
from clipgs_plugin.ops import intrinsics, look_at

pytest.importorskip('embreex')


def box(low, high, color=(1, 1, 1, 1)) -> Mesh:
    """A box with outward normals."""
    low, high = np.array(low, float), np.array(high, float)
    triangles, normals = [], []
    for axis in range(3):
        for side in (0, 1):
            a, b = ((axis + 1) % 3, (axis + 2) % 3) if side else ((axis + 2) % 3, (axis + 1) % 3)
            corners = np.tile(low, (4, 1))
            corners[:, axis] = (low, high)[side][axis]
            corners[[1, 2], a], corners[[2, 3], b] = high[a], high[b]
            triangles += [corners[[0, 1, 2]], corners[[0, 2, 3]]]
            normals += [np.eye(3)[axis] * (2 * side - 1)] * 2
    return Mesh((MeshPart(np.array(triangles, np.float32), np.repeat(np.array(normals, np.float32)[:, None], 3, 1),
                          np.array(color, np.float32)),))


class Boxes:
    """A source of coloured boxes with y up, of 10 to 30 cm."""

    up = 'y'
    listed = [Listed(f'box_{i}', Path(f'box_{i}.obj')) for i in range(3)]

    def list(self, root):
        return self.listed

    def load(self, listed):
        i = self.listed.index(listed)
        return box([-0.05 - 0.05 * i, 0, -0.04], [0.05 + 0.05 * i, 0.2, 0.04], [*np.eye(3)[i] * 0.8 + 0.1, 1])


TINY = SceneSettings(objects=2, gaussians=600, views=4, pixels=32, iterations=3, renderer='raycast')


@pytest.fixture(scope='module')
def scene():
    return make_scene(Boxes.listed, Boxes(), TINY, (0, 0))


def ends(mesh: Mesh) -> np.ndarray:
    corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts])
    return np.stack([corners.min(0), corners.max(0)])


def test_objects_stand_on_the_floor_apart_from_each_other():
    boxes = [box([0, 0, 0], [0.2, 0.1, 0.1]) for _ in range(9)]
    placed = place(Boxes.listed * 3, boxes, np.random.default_rng(0))
    found = np.array([[each.low, each.high] for each in placed])
    for each, (low, high) in zip(placed, found):
        assert np.allclose(ends(each.mesh), [low, high], atol=1e-5) and abs(low[1]) < 1e-6
        assert np.isclose(high[1], 0.1 * each.scale)  # upright
        assert abs(found[..., [0, 2]]).max() < HALF
    for i, (low, high) in enumerate(found):
        for other_low, other_high in found[i + 1:]:
            apart = np.maximum(low - other_high, other_low - high)[[0, 2]]
            assert apart.max() >= GAP - 1e-9


def test_larger_objects_stay_larger_and_sizes_are_bounded():
    meshes = [box([0, 0, 0], [side] * 3) for side in (0.02, 0.18, 0.36, 3.0)]
    heights = [each.high[1] for each in place([None] * 4, meshes, np.random.default_rng(1))]
    assert heights == sorted(heights) and 0.1 < heights[0] < heights[3] < 0.6


def test_light_of_points_in_the_open_in_a_shadow_and_turned_away():
    lid = box([-1, 1, -1], [1, 1.1, 1])
    lamp = Lamp(np.array([0, 1.0, 0]), 0.4, np.ones(3), width=0)
    points = np.array([[5.0, 0, 0], [0, 0.9, 0], [5, 0, 0]])
    normals = np.array([[0, 1.0, 0], [0, 1, 0], [1, 0, 0]])
    light = brightness(points, normals, lamp, Blockers(lid), np.random.default_rng(0))
    assert np.allclose(light[0], 1)          # open sky, lamp above
    assert (abs(light[1] - BOUNCE) < 0.1).all()  # just below the lid: what surfaces reflect
    assert BOUNCE < light[2, 0] <= 0.4       # the lamp at a right angle: sky and floor


def test_light_multiplies_in_linear_light_and_the_picture_is_exposed_for_middle_grey():
    plate = box([-1, -0.1, -1], [1, 0, 1], [0.5, 0.4, 0.2, 1])  # not clipped at white after the gain
    lamp = Lamp(np.array([0, 1.0, 0]), 0.5, np.ones(3), width=0)
    shaded = lit(plate, lamp, Blockers(plate), np.random.default_rng(0))
    sides = shaded.parts[0].colors.reshape(-1, 4)
    facing = plate.parts[0].normals.reshape(-1, 3) @ lamp.towards
    assert np.allclose(sides[facing > 0.5, :3], 1) and np.allclose(sides[abs(facing) < 0.5, 0], 0.5 ** (1 / 2.2))
    other = lit(box([2, 0, 0], [3, 1, 1], [0.1, 0.1, 0.1, 1]), lamp, Blockers(plate), np.random.default_rng(0))
    bright, dark = exposed([shaded, other])
    areas = [area(bright), area(dark)]
    means = [float((sample_surface(mesh, 4000, 1).colors ** 2.2 @ [0.2126, 0.7152, 0.0722]).mean())
             for mesh in (bright, dark)]
    assert np.average(means, weights=areas) == pytest.approx(0.18, rel=1e-3)
    gains = bright.parts[0].colors / shaded.parts[0].colors
    assert np.allclose(gains, gains[0, 0]) and gains[0, 0, 3] == 1


def test_rooms_have_their_walls_and_textures_differ_by_seed():
    for walls in (0, 1, 2):
        room = make_room(walls, np.random.default_rng(0))
        assert len(room.parts) == 1 + walls
        low, high = ends(room)
        assert np.allclose([low[0], low[2], high[0], high[2]], [-HALF, -HALF, HALF, HALF])
    inward = [part.normals[0, 0] for part in room.parts]
    assert np.allclose(inward, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    other = make_room(0, np.random.default_rng(1))
    assert (room.parts[0].texture != other.parts[0].texture).any() and room.parts[0].texture[..., :3].std() > 3


def test_gaussians_belong_to_the_nearest_surface_or_to_none_for_certain():
    meshes = [box([-0.6, -0.1, -0.4], [0.4, 0, 0.4]), box([0, 0, 0], [0.2, 0.2, 0.2])]
    means = np.array([[-0.5, 0.01, 0], [0.1, 0.2, 0.1], [0.1, 0.22, 0.1], [0.1, 0.3, 0.1], [0.1, 0.001, 0.202]])
    # On the floor, on the box, a little above it, far above it, and where the side of the box meets the floor.
    assert truth.label_gaussians(means, meshes).tolist() == [0, 1, 1, truth.UNSURE, truth.UNSURE]


def test_the_floor_under_a_plate_has_no_gaussians():
    meshes = [box([-0.4, -0.1, -0.4], [0.4, 0, 0.4]), box([-0.2, 0, -0.2], [0.2, 0.004, 0.2])]
    means = np.array([[0.05, 0.004, 0.1], [0.05, 0.002, 0.1], [0.35, 0.001, 0.1]])
    assert truth.label_gaussians(means, meshes).tolist() == [1, 1, 0]


def test_labels_agree_with_the_picture_of_the_meshes_and_wrong_ones_do_not():
    meshes = [box([-1, -0.1, -1], [1, 0, 1]), box([-0.5, 0, 0], [-0.1, 0.4, 0.4]), box([0.1, 0, 0], [0.5, 0.4, 0.4])]
    cloud = truth.joined([sample_surface(mesh, 3000, 0) for mesh in meshes])
    labels = np.repeat([0, 1, 2], 3000)
    cameras = look_at(torch.tensor([[0.0, 1.5, 2.5]])).numpy()
    views = Views(np.zeros((1, 64, 64, 4), np.float32), cameras, intrinsics(40, 64, 64).numpy()[None])
    ids = truth.render_ids(meshes, views, 'raycast')
    assert ids[0, 30, 21] == 1 and ids[0, 30, 42] == 2 and ids[0, 0, 0] == -1
    assert set(np.unique(ids)) == {-1, 0, 1, 2}
    assert truth.agreement(cloud, labels, meshes, views, 'raycast') > 0.75
    swapped = np.array([0, 2, 1])[labels]
    assert truth.agreement(cloud, swapped, meshes, views, 'raycast') < 0.1


def test_a_scene_is_its_objects_on_a_room(scene):
    assert 500 < len(scene.cloud) < 700 and scene.labels.shape == (len(scene.cloud),)
    assert set(np.unique(scene.labels)) <= {-1, 0, 1, 2} and [x['id'] for x in scene.record['objects']] == [1, 2]
    for item in scene.record['objects']:
        own = scene.cloud.means.numpy()[scene.labels == item['id']]
        assert len(own) == item['gaussians'] > 30 and 0.3 < item['seen'] <= 1
        assert (own > np.array(item['low']) - 0.05).all() and (own < np.array(item['high']) + 0.05).all()
    assert scene.record['quality']['psnr'] > 15 and scene.record['truth']['agreement'] > 0.5
    assert scene.pictures.shape == (320, 640, 3) and scene.pictures.std() > 10


def test_a_scene_is_a_function_of_its_seed(scene):
    again, other = (make_scene(Boxes.listed, Boxes(), TINY, seed) for seed in ((0, 0), (0, 1)))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(scene.cloud.fields(), again.cloud.fields()))
    assert (scene.labels == again.labels).all()
    assert scene.record['objects'][0]['low'] != other.record['objects'][0]['low']


def test_a_scene_is_read_as_it_was_written_and_every_reader_takes_its_splat(scene, tmp_path):
    write_scene(scene, tmp_path / '0000')
    (tmp_path / '0001').mkdir()  # interrupted
    assert scene_folders(tmp_path) == [tmp_path / '0000']
    found = read_scene(tmp_path / '0000')
    assert found.labels.tolist() == scene.labels.tolist() and found.objects == scene.record['objects']
    for cloud in (found.cloud, read_gaussians(tmp_path / '0000' / 'scene.ply')):
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(scene.cloud.fields(), cloud.fields()))
    assert ply.open_ply(tmp_path / '0000' / 'scene.ply')['vertex'].properties[-1] == 'object'
    assert (tmp_path / '0000' / 'preview.png').read_bytes()[1:4] == b'PNG'


def test_files_that_do_not_fit_are_refused(scene, tmp_path):
    write_scene(scene, tmp_path / 'a')
    record = json.loads((tmp_path / 'a' / 'scene.json').read_text())
    (tmp_path / 'a' / 'scene.json').write_text(json.dumps({**record, 'objects': record['objects'][:1]}))
    with pytest.raises(ValueError, match=r'labels run from .* to 2 and scene.json has the objects \[1\]'):
        read_scene(tmp_path / 'a')
    with pytest.raises(FileNotFoundError, match='make_scenes'):
        scene_folders(tmp_path / 'b')


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match='pixels=4'):
        SceneSettings(pixels=4)
    with pytest.raises(ValueError, match='--objects'):
        make_scene(Boxes.listed, Boxes(), SceneSettings(objects=5, renderer='raycast'), (0, 0))
    assert choose_renderer('raycast') == 'raycast'
