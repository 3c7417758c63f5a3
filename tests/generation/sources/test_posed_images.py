"""Posed images: an object rendered from known cameras, saved in every layout and read back."""
import json
import math
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from clipgs_plugin import ops
from clipgs_plugin.generation.objects import Listed, PosedImages, composite
from clipgs_plugin.generation.sources import ColmapSource, NerfSource
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.toy_world import make_object, object_specs

pytestmark = pytest.mark.filterwarnings('ignore:none of 2 points lies on the object')  # those of the models
WIDTH, HEIGHT, VIEWS = 64, 48, 4
FOCAL, CENTRE = (90.0, 84.0), (33.5, 22.25)  # neither square nor centred
INTRINSICS = np.array([[FOCAL[0], 0, CENTRE[0]], [0, FOCAL[1], CENTRE[1]], [0, 0, 1]])
GREY = (0.5, 0.5, 0.5)


class Scene:
    """A toy object, cameras in general position, and its images."""

    def __init__(self):
        self.cloud = make_object(object_specs(1, seed=5)[0], 300).gaussians
        eyes = torch.tensor([[2.6, 0.7, 1.4], [-1.8, 1.6, 2.0], [0.3, -0.9, -3.0], [-2.2, 2.3, -0.4]])
        self.viewmats = ops.look_at(eyes, (0.1, -0.05, 0.08), up=(0.2, 0.9, 0.3))
        self.intrinsics = torch.tensor(INTRINSICS, dtype=torch.float32).expand(VIEWS, 3, 3)
        colors, alpha = ops.render(self.cloud, self.viewmats, self.intrinsics, WIDTH, HEIGHT)
        rgba = torch.cat([colors / alpha.clamp_min(1e-6)[..., None], alpha[..., None]], -1)
        self.images = (rgba.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def draw(self, posed: PosedImages) -> np.ndarray:
        """Render the object from loaded cameras on grey."""
        height, width = posed.images.shape[1:3]
        return ops.render(self.cloud, torch.from_numpy(posed.viewmats), torch.from_numpy(posed.intrinsics), width,
                          height, GREY)[0].numpy()


@pytest.fixture(scope='module')
def scene():
    return Scene()


def psnr(a, b) -> float:
    return -10 * math.log10(np.mean((a.astype(np.float64) - b) ** 2))


def save(folder, images, names):
    for image, name in zip(images, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)


def save_split(folder, images, names, ones=False):
    """Save colours under images/ and alpha under masks/."""
    save(folder / 'images', images[..., :3], names)
    masks = (images[..., 3] > 127).astype(np.uint8) if ones else images[..., 3]
    save(folder / 'masks', masks, [f'{name}.png' for name in names])


def to_opengl(viewmat) -> list:
    """Camera to world with y up and z backward: invert in float64 and negate two columns."""
    matrix = np.linalg.inv(np.asarray(viewmat, np.float64))
    matrix[:, 1:3] *= -1
    return matrix.tolist()


def transforms(scene, names, **more) -> dict:
    frames = [{'file_path': name, 'transform_matrix': to_opengl(viewmat)}
              for name, viewmat in zip(names, scene.viewmats)]
    return {'fl_x': FOCAL[0], 'fl_y': FOCAL[1], 'cx': CENTRE[0], 'cy': CENTRE[1], 'w': WIDTH, 'h': HEIGHT, **more,
            'frames': frames}


def write_nerf(folder, scene, **more):
    names = [f'images/{i}.png' for i in range(VIEWS)]
    save(folder, scene.images, names)
    (folder / 'transforms.json').write_text(json.dumps(transforms(scene, names, **more)))
    return NerfSource()


def write_nerf_masks(folder, scene):
    names = [f'{i}.png' for i in range(VIEWS)]
    save_split(folder, scene.images, names)
    content = transforms(scene, [f'images\\{name}' for name in names])  # as instant-ngp writes on Windows
    for frame, name in zip(content['frames'], names):
        frame['mask_path'] = f'masks/{name}.png'
        frame['w'], frame['fl_x'] = WIDTH, FOCAL[0]
    content['fl_x'] = 7.0  # the frame takes precedence
    (folder / 'transforms.json').write_text(json.dumps(content))
    return NerfSource()


def write_blender(folder, scene):
    """Write the layout of NeRF's own scenes: angles instead of focal lengths, and names without endings."""
    save(folder, scene.images, [f'./train/r_{i}.0.png' for i in range(VIEWS)])
    content = transforms(scene, [f'./train/r_{i}.0' for i in range(VIEWS)])
    for key in ('fl_x', 'fl_y', 'w', 'h'):
        del content[key]
    content['camera_angle_x'] = 2 * math.atan(WIDTH / 2 / FOCAL[0])
    content['camera_angle_y'] = 2 * math.atan(HEIGHT / 2 / FOCAL[1])
    for split, part in (('train', slice(0, 3)), ('test', slice(3, None))):
        (folder / f'transforms_{split}.json').write_text(json.dumps({**content, 'frames': content['frames'][part]}))
    return NerfSource(splits=['train', 'val', 'test'])


NAMES = [f'deep/view {i}.jpg.png' for i in range(VIEWS)]
POINTS = [(0.25, -0.5, 1.5, 255, 0, 51), (1.0, 2.0, -3.0, 0, 102, 255)]


def poses(scene):
    """Number, quaternion wxyz, translation, camera and name of each image, not in the order of the names."""
    for i in reversed(range(VIEWS)):
        matrix = scene.viewmats[i].double().numpy()
        x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
        # A quaternion and its negative are the same rotation, and its length does not matter.
        yield i + 7, [-w * 1.001, -x * 1.001, -y * 1.001, -z * 1.001], matrix[:3, 3], 3, NAMES[i]


def write_colmap_text(folder, scene, masks=True):
    if masks:
        save_split(folder, scene.images, NAMES)
    else:
        save(folder / 'images', scene.images, NAMES)
    model = folder / 'sparse' / '0'
    model.mkdir(parents=True)
    (model / 'cameras.txt').write_text(f'# comment\n3 PINHOLE {WIDTH} {HEIGHT} {FOCAL[0]} {FOCAL[1]} {CENTRE[0]} '
                                       f'{CENTRE[1]}\n')
    lines = ['# comment']
    for number, quat, shift, camera, name in poses(scene):
        lines += [' '.join(map(repr, [number, *map(float, quat), *map(float, shift), camera])) + f' {name}',
                  '' if number % 2 else '1.5 2.5 -1 3.25 4.0 12']
    (model / 'images.txt').write_text('\n'.join(lines) + '\n')
    (model / 'points3D.txt').write_text('# comment\n' + ''.join(
        f'{i} {" ".join(map(str, point))} 0.5 7 1 8 0\n' for i, point in enumerate(POINTS)))
    return ColmapSource()


def write_colmap_binary(folder, scene):
    save_split(folder, scene.images, NAMES, ones=True)
    model = folder / 'sparse'
    model.mkdir(parents=True)
    (model / 'cameras.bin').write_bytes(
        struct.pack('<Q', 2) + struct.pack('<iiQQ3d', 9, 0, 10, 10, 5, 5, 5)
        + struct.pack('<iiQQ4d', 3, 1, WIDTH, HEIGHT, *FOCAL, *CENTRE))
    images = struct.pack('<Q', VIEWS)
    for number, quat, shift, camera, name in poses(scene):
        seen = [(1.5, 2.5, -1)] * (number % 3)
        images += struct.pack('<i4d3di', number, *quat, *shift, camera) + name.encode() + b'\0'
        images += struct.pack('<Q', len(seen)) + b''.join(struct.pack('<ddq', *row) for row in seen)
    (model / 'images.bin').write_bytes(images)
    points = struct.pack('<Q', len(POINTS))
    for i, point in enumerate(POINTS):
        points += struct.pack('<Q3d3BdQ', i, *point, 0.5, i) + struct.pack('<ii', 7, 0) * i
    (model / 'points3D.bin').write_bytes(points)
    return ColmapSource()


LAYOUTS = [write_nerf, write_nerf_masks, write_blender, write_colmap_text, write_colmap_binary]


def load(source, folder) -> PosedImages:
    (listed,) = source.list(folder)
    return source.load(listed)


@pytest.mark.parametrize('write', LAYOUTS)
def test_every_layout_returns_its_cameras_and_images(write, scene, tmp_path):
    posed = load(write(tmp_path / 'thing', scene), tmp_path)
    np.testing.assert_allclose(posed.viewmats, scene.viewmats, atol=1e-5)
    np.testing.assert_allclose(posed.intrinsics, np.broadcast_to(INTRINSICS, (VIEWS, 3, 3)), rtol=1e-6, atol=1e-5)
    assert posed.images.dtype == posed.viewmats.dtype == posed.intrinsics.dtype == np.float32
    expected = scene.images / 255
    if write is write_colmap_binary:  # its masks are 0 and 1
        expected[..., 3] = expected[..., 3] > 0.5
    np.testing.assert_allclose(posed.images, expected, atol=1e-6)


@pytest.mark.parametrize('write', LAYOUTS[:4])
def test_the_object_rendered_at_loaded_cameras_matches_the_images(write, scene, tmp_path):
    posed = load(write(tmp_path, scene), tmp_path)
    assert psnr(scene.draw(posed), composite(posed.images, GREY)) > 45
    turned = posed._replace(viewmats=posed.viewmats[[1, 2, 3, 0]])
    assert psnr(scene.draw(turned), composite(posed.images, GREY)) < 25


@pytest.mark.parametrize('write', [write_colmap_text, write_colmap_binary])
def test_points_of_a_model_are_loaded(write, scene, tmp_path):
    source = write(tmp_path, scene)
    with pytest.warns(UserWarning, match='none of 2 points lies on the object'):
        assert load(source, tmp_path).points is None
    (tmp_path / 'masks').rename(tmp_path / 'elsewhere')
    points = load(source, tmp_path).points
    expected = np.array(POINTS)
    np.testing.assert_array_equal(points.positions, expected[:, :3])
    np.testing.assert_allclose(points.colors, expected[:, 3:] / 255, atol=1e-7)


# Lens coefficients in OpenCV's order: k1, k2, p1, p2, k3 ..., or those of a fisheye

def bent(x, y, k, fisheye):
    """Distort pinhole coordinates by OpenCV's formulas."""
    r = np.hypot(x, y)
    if fisheye:
        theta = np.arctan(r)
        scale = theta * sum(value * theta ** (2 * i) for i, value in enumerate([1, *k])) / np.maximum(r, 1e-12)
        return x * scale, y * scale
    k1, k2, p1, p2, k3, k4, k5, k6 = [*k, *[0] * 8][:8]
    scale = (1 + k1 * r ** 2 + k2 * r ** 4 + k3 * r ** 6) / (1 + k4 * r ** 2 + k5 * r ** 4 + k6 * r ** 6)
    return (x * scale + 2 * p1 * x * y + p2 * (r ** 2 + 2 * x ** 2),
            y * scale + p1 * (r ** 2 + 2 * y ** 2) + 2 * p2 * x * y)


def photographed(scene, k, fisheye, background=None, factor=1) -> np.ndarray:
    """Render the scene through a lens, ``factor`` times larger: solve for the rays and sample larger images.

    Float colours in [0, 1] on a background, or uint8 with alpha.
    """
    width, height = WIDTH * factor, HEIGHT * factor
    u, v = np.meshgrid((np.arange(width) + 0.5) / factor, (np.arange(height) + 0.5) / factor)
    goal = (u - CENTRE[0]) / FOCAL[0], (v - CENTRE[1]) / FOCAL[1]
    x, y = goal
    for _ in range(100):
        found = bent(x, y, k, fisheye)
        x, y = x + goal[0] - found[0], y + goal[1] - found[1]
    large = torch.tensor([[500.0, 0, 400], [0, 500, 300], [0, 0, 1]]).expand(VIEWS, 3, 3)
    colors, alpha = ops.render(scene.cloud, scene.viewmats, large, 800, 600)
    planes = torch.cat([colors, alpha[..., None]], -1).numpy()
    taken = np.stack([[ndimage.map_coordinates(plane, (500 * y + 299.5, 500 * x + 399.5), order=1)
                       for plane in image.transpose(2, 0, 1)] for image in planes]).transpose(0, 2, 3, 1)
    if background is not None:
        return taken[..., :3] + (1 - taken[..., 3:]) * background
    taken[..., :3] /= np.maximum(taken[..., 3:], 1e-6)
    return (taken.clip(0, 1) * 255).round().astype(np.uint8)


def nerf_of_lens(folder, scene, images, **lens):
    source = write_nerf(folder, scene, **lens)
    save(folder, images, [f'images/{i}.png' for i in range(VIEWS)])
    return source


def colmap_of_lens(number, name, *parameters):
    """Write COLMAP's text, or binary if the model is given by its number."""
    def write(folder, scene, images):
        if number is None:
            source = write_colmap_text(folder, scene, masks=False)
            (folder / 'sparse/0/cameras.txt').write_text(
                f'3 {name} {WIDTH} {HEIGHT} {" ".join(map(str, parameters))}\n')
            save(folder / 'images', images, NAMES)
            return source
        source = write_colmap_binary(folder, scene)
        (folder / 'sparse/cameras.bin').write_bytes(struct.pack(
            f'<QiiQQ{len(parameters)}d', 1, 3, number, WIDTH, HEIGHT, *parameters))
        save_split(folder, images, NAMES)
        return source
    return write


EYE = (*FOCAL, *CENTRE)
LENSES = {
    'nerf': ([-0.6, 0.1, 0.02, -0.03, 0.05], False, lambda *where: nerf_of_lens(
        *where, k1=-0.6, k2=0.1, p1=0.02, p2=-0.03, k3=0.05, camera_model='OPENCV')),
    'nerf without a model': ([0.9], False, lambda *where: nerf_of_lens(*where, k1=0.9)),
    'nerf fisheye': ([-0.5, -0.1, 0.05, 0.02], True, lambda *where: nerf_of_lens(
        *where, k1=-0.5, k2=-0.1, k3=0.05, k4=0.02, camera_model='OPENCV_FISHEYE')),
    'instant-ngp fisheye': ([-0.5], True, lambda *where: nerf_of_lens(*where, k1=-0.5, is_fisheye=True)),
    'colmap': ([-0.6, 0.1, 0.02, -0.03], False, colmap_of_lens(None, 'OPENCV', *EYE, -0.6, 0.1, 0.02, -0.03)),
    'colmap full': ([0.9, 0.2, 0.02, -0.03, 0.1, -0.1, 0.2, 0.1], False, colmap_of_lens(
        None, 'FULL_OPENCV', *EYE, 0.9, 0.2, 0.02, -0.03, 0.1, -0.1, 0.2, 0.1)),
    'colmap binary': ([-0.6, 0.1, 0.02, -0.03], False, colmap_of_lens(4, 'OPENCV', *EYE, -0.6, 0.1, 0.02, -0.03)),
    'colmap binary fisheye': ([-0.5, -0.1, 0.05, 0.02], True, colmap_of_lens(
        5, 'OPENCV_FISHEYE', *EYE, -0.5, -0.1, 0.05, 0.02)),
}


@pytest.mark.parametrize('k, fisheye, write', LENSES.values(), ids=LENSES)
def test_the_object_rendered_at_loaded_cameras_matches_undistorted_images(k, fisheye, write, scene, tmp_path):
    source = write(tmp_path, scene, photographed(scene, k, fisheye))
    posed = load(source, tmp_path)
    assert psnr(scene.draw(posed), composite(posed.images, GREY)) > 35
    ignored = load(write_nerf(tmp_path / 'ignored', scene), tmp_path / 'ignored')
    assert psnr(scene.draw(ignored), photographed(scene, k, fisheye, GREY)) < 27
    np.testing.assert_allclose(posed.intrinsics[0, :2, 2], CENTRE, rtol=1e-6)
    assert np.ptp(posed.intrinsics, axis=0).max() == 0 and posed.intrinsics[0, 0, 0] != np.float32(FOCAL[0])


def test_radial_models_of_colmap_have_one_focal_length(scene, tmp_path):
    """Four models describe the same lens."""
    found = []
    for i, write in enumerate((colmap_of_lens(None, 'SIMPLE_RADIAL', 88, *CENTRE, -0.2),
                               colmap_of_lens(2, None, 88, *CENTRE, -0.2),
                               colmap_of_lens(3, None, 88, *CENTRE, -0.2, 0),
                               colmap_of_lens(None, 'OPENCV', 88, 88, *CENTRE, -0.2, 0, 0, 0))):
        (tmp_path / str(i)).mkdir()
        found.append(load(write(tmp_path / str(i), scene, scene.images), tmp_path / str(i)))
    for other in found[1:]:
        np.testing.assert_allclose(other.images, found[0].images, atol=1e-6)
        np.testing.assert_allclose(other.intrinsics, found[0].intrinsics, rtol=1e-6)
    assert np.abs(found[0].images - scene.images / 255).max() > 0.1


def test_large_images_are_undistorted_at_twice_the_final_size(scene, tmp_path):
    k = [-0.3, 0.1, 0.02, -0.03]
    source = nerf_of_lens(tmp_path, scene, photographed(scene, k, False, factor=5), k1=k[0], k2=k[1], p1=k[2], p2=k[3])
    posed = load(NerfSource(size=WIDTH), tmp_path)
    assert posed.images.shape == (VIEWS, HEIGHT, WIDTH, 4)
    assert psnr(scene.draw(posed), composite(posed.images, GREY)) > 32
    whole = load(source, tmp_path)
    assert whole.images.shape == (VIEWS, 5 * HEIGHT, 5 * WIDTH, 4)
    np.testing.assert_allclose(whole.intrinsics[:, :2], 5 * posed.intrinsics[:, :2], rtol=1e-5)
    assert psnr(scene.draw(whole), composite(whole.images, GREY)) > 32


def test_a_folder_of_masks_that_no_frame_names(scene, tmp_path):
    names = ['a.jpg', 'b.png', 'deep/c.jpg', 'd.jpg']
    folder = tmp_path / 'thing'
    save(folder / 'images', scene.images[..., :3], names)
    save(folder / 'masks', scene.images[..., 3], ['a.jpg.png', 'b.png', 'deep/c.png', 'd.jpg.png'])
    (folder / 'transforms.json').write_text(json.dumps(transforms(scene, [f'./images/{name}' for name in names])))
    posed = load(NerfSource(), tmp_path)
    np.testing.assert_allclose(posed.images[..., 3], scene.images[..., 3] / 255, atol=1e-6)
    (folder / 'masks/b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'masks/b\.png\.png: no mask for this image'):
        load(NerfSource(), tmp_path)


def test_the_file_or_the_folder_of_cameras_stands_for_the_object(scene, tmp_path):
    nerf, colmap = write_nerf(tmp_path / 'n', scene), write_colmap_text(tmp_path / 'c', scene)
    for source, folder, path in ((nerf, 'n', 'n/transforms.json'), (colmap, 'c', 'c/sparse/0'),
                                 (colmap, 'c', 'c/sparse/0/cameras.txt')):
        (listed,) = source.list(tmp_path / path)
        assert (listed.uid, listed.path) == (folder, tmp_path / folder)
        np.testing.assert_array_equal(source.load(Listed('x', tmp_path / path)).viewmats, source.load(listed).viewmats)


def test_points_that_a_transforms_file_names_are_loaded(scene, tmp_path):
    source = write_nerf(tmp_path, scene, ply_file_path='sparse.ply')
    names = ''.join(f'property float {name}\n' for name in 'xyz')
    names += ''.join(f'property uchar {name}\n' for name in ('red', 'green', 'blue'))
    rows = ''.join(' '.join(map(str, point)) + '\n' for point in POINTS)
    save(tmp_path / 'images', scene.images[..., :3], [f'{i}.png' for i in range(VIEWS)])
    (tmp_path / 'sparse.ply').write_text(f'ply\nformat ascii 1.0\nelement vertex 2\n{names}end_header\n{rows}')
    points = load(source, tmp_path).points
    np.testing.assert_array_equal(points.positions, np.array(POINTS)[:, :3])
    np.testing.assert_allclose(points.colors, np.array(POINTS)[:, 3:] / 255, atol=1e-7)
    (tmp_path / 'sparse.ply').unlink()
    with pytest.raises(FileNotFoundError, match=r"ply_file_path 'sparse\.ply' does not exist"):
        load(source, tmp_path)


def test_a_model_without_points_or_masks_loads(scene, tmp_path):
    source = write_colmap_text(tmp_path, scene, masks=False)
    for name in NAMES:
        Image.open(tmp_path / 'images' / name).convert('RGB').save(tmp_path / 'images' / name)
    (tmp_path / 'sparse/0/points3D.txt').unlink()
    posed = load(source, tmp_path)
    assert posed.points is None
    assert (posed.images[..., 3] == 1).all()


def test_objects_are_folders_listed_by_name(tmp_path):
    for name in ('shoe/b.1', 'shoe/b.2', 'shoe/test/c', 'cup/a'):
        (tmp_path / name / 'images/deep').mkdir(parents=True)
        for file in ('transforms_train.json', 'images/deep/transforms.json'):  # an object holds no other
            (tmp_path / name / file).touch()
    (tmp_path / '.cache/old').mkdir(parents=True)
    (tmp_path / '.cache/old/transforms.json').touch()
    listed = NerfSource().list(tmp_path)
    assert [(item.uid, item.category, item.split, item.path.relative_to(tmp_path).as_posix()) for item in listed] == [
        ('cup-a', 'cup', 'train', 'cup/a'), ('shoe-b_1', 'shoe', 'train', 'shoe/b.1'),
        ('shoe-b_2', 'shoe', 'train', 'shoe/b.2'), ('shoe-test-c', 'shoe', 'test', 'shoe/test/c')]
    assert ColmapSource().list(tmp_path) == []
    folder = tmp_path / 'cup/a'
    assert NerfSource().list(folder) == NerfSource().list(folder / 'transforms_train.json')
    assert [(item.uid, item.path) for item in NerfSource().list(folder)] == [('a', folder)]


def test_sources_are_registered():
    source = TASK_UTILS.build(dict(type='NerfSource', size=None, splits=['test']))
    assert isinstance(source, NerfSource) and source.up == 'z'
    assert TASK_UTILS.build(dict(type='ColmapSource')).up == '-y'


def test_downscaled_images_are_area_means_and_cameras_follow(scene, tmp_path):
    write_nerf(tmp_path, scene)
    posed = load(NerfSource(size=WIDTH // 2), tmp_path)
    assert posed.images.shape == (VIEWS, HEIGHT // 2, WIDTH // 2, 4)
    full = scene.images.astype(np.float64) / 255
    cells = composite(full, (0, 0, 0)).reshape(VIEWS, HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((2, 4))
    np.testing.assert_allclose(composite(posed.images, (0, 0, 0)), cells, atol=1e-6)
    # A point of the object projects to the same place relative to the width.
    matrix = posed.intrinsics[1] @ posed.viewmats[1, :3]
    expected = INTRINSICS @ scene.viewmats[1, :3].double().numpy()
    place, full_place = matrix @ [0.3, 0.2, -0.1, 1], expected @ [0.3, 0.2, -0.1, 1]
    np.testing.assert_allclose(2 * place[:2] / place[2], full_place[:2] / full_place[2], atol=1e-4)


def test_images_may_be_smaller_than_the_model_states(scene, tmp_path):
    write_nerf(tmp_path, scene, w=4 * WIDTH, h=4 * HEIGHT, fl_x=4 * FOCAL[0], fl_y=4 * FOCAL[1], cx=4 * CENTRE[0],
               cy=4 * CENTRE[1])
    posed = load(NerfSource(), tmp_path)
    np.testing.assert_allclose(posed.intrinsics, np.broadcast_to(INTRINSICS, (VIEWS, 3, 3)), rtol=1e-6)


def test_max_views_samples_evenly(scene, tmp_path):
    write_nerf(tmp_path, scene)
    posed = load(NerfSource(max_views=2), tmp_path)
    np.testing.assert_allclose(posed.viewmats, scene.viewmats[[0, 2]], atol=1e-5)


def test_images_of_several_sizes_need_a_size(scene, tmp_path):
    write_nerf(tmp_path, scene)
    Image.open(tmp_path / 'images/2.png').resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX).save(
        tmp_path / 'images/2.png')
    with pytest.raises(ValueError, match=r'2\.png has 32 x 24 pixels, .*0\.png has 64 x 48; set size=N'):
        load(NerfSource(size=None), tmp_path)
    posed = load(NerfSource(size=60), tmp_path)
    assert posed.images.shape == (VIEWS, 24, 32, 4)
    np.testing.assert_allclose(posed.intrinsics[:, :2], np.broadcast_to(INTRINSICS[:2] / 2, (VIEWS, 2, 3)), rtol=1e-6)


def test_a_scaled_camera_is_the_same_camera(scene, tmp_path):
    write_nerf(tmp_path, scene)
    content = json.loads((tmp_path / 'transforms.json').read_text())
    for frame in content['frames']:
        matrix = np.array(frame['transform_matrix'])
        matrix[:3, :3] *= 2.5
        frame['transform_matrix'] = matrix[:3].tolist()
    (tmp_path / 'transforms.json').write_text(json.dumps(content))
    np.testing.assert_allclose(load(NerfSource(), tmp_path).viewmats, scene.viewmats, atol=1e-5)


def edit(**changes):
    """Set top-level values of transforms.json; None removes one."""
    def change(folder):
        content = json.loads((folder / 'transforms.json').read_text())
        content = {key: value for key, value in {**content, **changes}.items() if value is not None}
        (folder / 'transforms.json').write_text(json.dumps(content))
    return change


def edit_frame(**changes):
    def change(folder):
        content = json.loads((folder / 'transforms.json').read_text())
        frame = {**content['frames'][1], **changes}
        content['frames'][1] = {key: value for key, value in frame.items() if value is not None}
        (folder / 'transforms.json').write_text(json.dumps(content))
    return change


MIRROR = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
BAD_NERF = {
    'missing image': (lambda f: (f / 'images/1.png').unlink(), FileNotFoundError,
                      r"frame 1: file_path 'images/1\.png'"),
    'truncated image': (lambda f: (f / 'images/1.png').write_bytes((f / 'images/1.png').read_bytes()[:200]),
                          ValueError, r'1\.png: damaged image'),
    'not an image': (lambda f: (f / 'images/1.png').write_text('no'), ValueError, r'1\.png: not an image that Pillow'),
    'another shape': (lambda f: Image.new('RGB', (48, 64)).save(f / 'images/1.png'), ValueError,
                      r'1\.png: 48 x 64 pixels, its camera is for 64 x 48'),
    'not JSON': (lambda f: (f / 'transforms.json').write_text('{"frames": ['), ValueError, r'json: not valid JSON'),
    'not text': (lambda f: (f / 'transforms.json').write_bytes(b'\xff\xfe\xfa'), ValueError, r'json: not valid JSON'),
    'nested JSON': (lambda f: (f / 'transforms.json').write_text('[' * 100_000), ValueError, 'json: JSON nested'),
    'a place beyond float32': (edit_frame(transform_matrix=[[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0]]), ValueError,
                               r'1\.png: its camera has numbers beyond float32'),
    'a name of 5000 letters': (edit(frames=[dict(file_path='a' * 5000)]), ValueError, 'file_path. is .{100}, expected'),
    'points of another kind': (edit(ply_file_path='images/1.png'), ValueError, 'json: its ply_file_path cannot be'),
    'camera model is a list': (edit(camera_model=[]), ValueError, 'camera_model is a list of 0, expected a string'),
    'no frames': (edit(frames=None), ValueError, 'frames is missing, expected a list'),
    'empty frames': (edit(frames=[]), ValueError, 'its cameras name no images'),
    'no focal length': (edit(fl_x=None), ValueError, "frame 0: neither 'fl_x' nor 'camera_angle_x'"),
    'focal length is text': (edit(fl_y='wide'), ValueError, "frame 0: 'fl_y' is 'wide', expected a number"),
    'focal length below 0': (edit(fl_y=-3), ValueError, "frame 0: 'fl_y' is -3"),
    'impossible lens': (edit(k1=-90), ValueError, r'0\.png: Lens.*its distortion coefficients are wrong'),
    'lens is text': (edit(p1='little'), ValueError, "frame 0: 'p1' is 'little', expected a number"),
    'ambiguous lens': (edit(k4=0.1), ValueError, "frame 0: k4, k5 and k6 differ .*'FULL_OPENCV'"),
    'panorama': (edit(camera_model='EQUIRECTANGULAR'), ValueError, "camera_model is 'EQUIRECTANGULAR', .*; undistort"),
    'no matrix': (edit_frame(transform_matrix=None), ValueError, "frame 1: no 'transform_matrix'"),
    'matrix is text': (edit_frame(transform_matrix='eye'), ValueError, "frame 1: 'transform_matrix' is 'eye'"),
    'matrix too small': (edit_frame(transform_matrix=[[1, 0], [0, 1]]), ValueError, 'expected 4 x 4 finite'),
    'mirrored': (edit_frame(transform_matrix=MIRROR), ValueError, 'frame 1.* shears or mirrors'),
    'no name': (edit_frame(file_path=None), ValueError, "frame 1: 'file_path' is None"),
    'missing mask': (edit_frame(mask_path='masks/1.png'), FileNotFoundError, "frame 1: mask_path 'masks/1.png'"),
}


@pytest.mark.parametrize('harm, error, match', BAD_NERF.values(), ids=BAD_NERF)
def test_bad_nerf_folders_are_refused_with_a_reason(harm, error, match, scene, tmp_path):
    source = write_nerf(tmp_path, scene, k1=0.0, p1=0, camera_model='OPENCV')
    load(source, tmp_path)
    harm(tmp_path)
    with pytest.raises(error, match=match):
        load(source, tmp_path)


def test_16_bit_masks_multiply_alpha(scene, tmp_path):
    source = write_nerf(tmp_path, scene)
    mask = np.linspace(0, 65535, WIDTH * HEIGHT).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(mask).save(tmp_path / 'mask.png')
    edit_frame(mask_path='mask')(tmp_path)
    expected = scene.images[1, ..., 3] / 255 * (mask / 65535)
    np.testing.assert_allclose(load(source, tmp_path).images[1, ..., 3], expected, atol=1e-6)


def test_a_mask_of_another_size_and_a_missing_split_are_refused(scene, tmp_path):
    source = write_nerf_masks(tmp_path / 'masked', scene)
    Image.new('L', (10, 12)).save(tmp_path / 'masked/masks/2.png.png')
    with pytest.raises(ValueError, match=r'2\.png\.png: 10 x 12 pixels, its image 2\.png has 64 x 48'):
        load(source, tmp_path / 'masked')
    write_blender(tmp_path / 'split', scene)
    with pytest.raises(FileNotFoundError, match=r"splits=\['val'\]; name the splits"):
        load(NerfSource(splits=['val']), tmp_path / 'split')


def rewrite(name, old, new):
    def change(folder):
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return change


BAD_COLMAP = {
    'camera model': (rewrite('sparse/0/cameras.txt', 'PINHOLE', 'FOV'), r'line 2: camera model FOV, .*undistort'),
    'another camera model': (rewrite('sparse/0/cameras.txt', 'PINHOLE', 'OPENCV'),
                             'line 2: 4 parameters for a OPENCV, expected 8: fx, fy, cx, cy, k1, k2, p1, p2'),
    'impossible lens': (rewrite('sparse/0/cameras.txt', f'PINHOLE {WIDTH} {HEIGHT} {FOCAL[0]} {FOCAL[1]} '
                                 f'{CENTRE[0]} {CENTRE[1]}', f'SIMPLE_RADIAL {WIDTH} {HEIGHT} 50 32 24 -50'),
                         r'view 0\.jpg\.png: Lens.*its distortion coefficients are wrong'),
    'too few numbers': (rewrite('sparse/0/cameras.txt', f' {CENTRE[1]}', ''), '3 parameters for a PINHOLE, expected 4'),
    'text for numbers': (rewrite('sparse/0/cameras.txt', str(CENTRE[1]), 'c'), r"line 2: expected 4 numbers, got '90"),
    'short camera': (rewrite('sparse/0/cameras.txt', '3 PINHOLE', '3 PINHOLE #'), 'line 2: expected 3 numbers'),
    'no such camera': (rewrite('sparse/0/cameras.txt', '3 PINHOLE', '4 PINHOLE'), r'view 0\.jpg\.png has camera 3'),
    'not finite': (rewrite('sparse/0/cameras.txt', str(FOCAL[0]), 'nan'), 'expected finite'),
    'lines of points left out': (rewrite('sparse/0/images.txt', '1.5 2.5 -1 3.25 4.0 12\n', ''), 'three numbers each'),
    'missing image': (lambda f: (f / 'images' / NAMES[1]).unlink(), r'view 1\.jpg\.png: the model names this'),
    'missing mask': (lambda f: (f / 'masks' / f'{NAMES[1]}.png').unlink(), 'no mask for this image'),
    'point is text': (rewrite('sparse/0/points3D.txt', '-0.5', 'x'), r'points3D\.txt, line 2: expected 6 num'),
    'point not finite': (rewrite('sparse/0/points3D.txt', '-0.5', 'inf'), 'points are not finite'),
    'not text': (lambda f: (f / 'sparse/0/images.txt').write_bytes(b'\xff\xfe'), r'images\.txt: not text'),
}


@pytest.mark.parametrize('harm, match', BAD_COLMAP.values(), ids=BAD_COLMAP)
def test_bad_colmap_folders_are_refused_with_a_reason(harm, match, scene, tmp_path):
    source = write_colmap_text(tmp_path, scene)
    load(source, tmp_path)
    harm(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        load(source, tmp_path)


@pytest.mark.parametrize('name', ['cameras', 'images', 'points3D'])
def test_binary_models_cut_anywhere_are_refused(name, scene, tmp_path):
    source = write_colmap_binary(tmp_path, scene)
    path = tmp_path / 'sparse' / f'{name}.bin'
    whole = path.read_bytes()
    for length in (0, 7, 8, 11, 20, 40, 75, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf'{name}\.bin: ends in the middle, after {length} bytes'):
            load(source, tmp_path)
    path.write_bytes(whole + b'\0\0')
    with pytest.raises(ValueError, match=rf'{name}\.bin: 2 bytes follow the last record'):
        load(source, tmp_path)


def test_binary_cameras_of_other_models_are_named(scene, tmp_path):
    source = write_colmap_binary(tmp_path, scene)
    for number, name in ((7, 'FOV'), (10, 'THIN_PRISM_FISHEYE'), (77, 'number 77')):
        (tmp_path / 'sparse/cameras.bin').write_bytes(
            struct.pack('<Q', 1) + struct.pack('<iiQQ4d', 3, number, WIDTH, HEIGHT, *FOCAL, *CENTRE))
        with pytest.raises(ValueError, match=f'camera 3: camera model {name}, expected one of SIMPLE_PINHOLE, PINHOLE'):
            load(source, tmp_path)


def test_options_out_of_range_are_refused(tmp_path):
    for options, match in ((dict(up='w'), "up='w'"), (dict(size=0), 'size=0'), (dict(max_views=0), 'max_views=0')):
        for source in (NerfSource, ColmapSource):
            with pytest.raises(ValueError, match=match):
                source(**options)
    with pytest.raises(ValueError, match="splits='train'"):
        NerfSource(splits='train')
    with pytest.raises(FileNotFoundError, match='no such folder'):
        NerfSource().list(tmp_path / 'gone')
