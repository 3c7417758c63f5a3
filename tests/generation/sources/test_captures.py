"""A scanned object, photographed by hand and saved in common layouts, becomes Gaussians on its surface."""
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from clipgs_plugin import ops
from clipgs_plugin.generation import FitSettings, GenerationSettings, ViewRule, make_triplet
from clipgs_plugin.generation.rendering import render_mesh
from clipgs_plugin.generation.rendering.surfaces import sample_surface
from clipgs_plugin.generation.sources import ColmapSource, ManifestSource, MeshSource, NerfSource

pytest.importorskip('embreex')

NAME = 'Room_Essentials_Bowl_Turquiose'
WIDTH, HEIGHT, VIEWS = 200, 150, 24
LENS = dict(fl_x=236.0, fl_y=238.0, cx=103.0, cy=72.0, k1=-0.25, k2=0.08, p1=0.004, p2=-0.003)
SETTINGS = GenerationSettings(views=ViewRule(num_views=8, size=64), fit=FitSettings(num_gaussians=1500, iterations=200))


class Capture:
    """Three rings of handheld views, z up, through a distorting lens, before a background of clouds."""

    def __init__(self, folder):
        source = MeshSource(up='z')
        (listed,) = source.list(folder)
        mesh = source.load(listed)
        corners = np.concatenate([part.triangles.reshape(-1, 3) for part in mesh.parts])
        self.centre = (corners.min(0) + corners.max(0)) / 2
        self.radius = np.linalg.norm(corners - self.centre, axis=1).max()
        self.surface = sample_surface(mesh, 20_000, seed=0)
        rng = np.random.default_rng(0)
        turn = 6 * np.pi * np.arange(VIEWS) / VIEWS + rng.normal(0, 0.05, VIEWS)
        rise = np.resize([-0.1, 0.4, 0.95], VIEWS) + rng.normal(0, 0.05, VIEWS)
        away = np.stack([np.cos(turn) * np.cos(rise), np.sin(turn) * np.cos(rise), np.sin(rise)], 1)
        eyes = self.centre + away * self.radius * rng.normal(3.6, 0.1, (VIEWS, 1))
        self.viewmats = np.concatenate([ops.look_at(
            torch.tensor(eye[None], dtype=torch.float32), tuple(self.centre + rng.normal(0, 0.05 * self.radius, 3)),
            up=(0, 0, 1)).numpy() for eye in eyes])
        # Solve for the rays of the lens and sample wider pinhole images.
        u = (np.arange(WIDTH) + 0.5 - LENS['cx']) / LENS['fl_x']
        v = (np.arange(HEIGHT) + 0.5 - LENS['cy']) / LENS['fl_y']
        goal = np.stack(np.meshgrid(u, v))
        x, y = goal
        for _ in range(60):
            r2 = x * x + y * y
            scale = 1 + LENS['k1'] * r2 + LENS['k2'] * r2 ** 2
            bent = np.stack([x * scale + 2 * LENS['p1'] * x * y + LENS['p2'] * (r2 + 2 * x * x),
                             y * scale + LENS['p1'] * (r2 + 2 * y * y) + 2 * LENS['p2'] * x * y])
            x, y = np.stack([x, y]) + goal - bent
        wide = render_mesh(mesh, self.viewmats, np.array([[400, 0, 240], [0, 400, 180], [0, 0, 1]], np.float32), 480,
                           360, samples=2)
        planes = np.concatenate([wide[..., :3] * wide[..., 3:], wide[..., 3:]], -1)
        taken = np.stack([np.stack([ndimage.map_coordinates(image[..., channel], (400 * y + 179.5, 400 * x + 239.5),
                                                            order=1) for channel in range(4)], -1)
                          for image in planes]).clip(0, 1)
        clouds = ndimage.gaussian_filter(rng.random((HEIGHT, WIDTH, 3)), (8, 8, 0))
        self.images = np.rint(255 * (taken[..., :3] + clouds * (1 - taken[..., 3:]))).astype(np.uint8)
        self.masks = np.rint(255 * taken[..., 3]).astype(np.uint8)
        # Points of a reconstruction: noisy on the object, and around it.
        near = self.surface.positions[::16] + rng.normal(0, 0.01 * self.radius, (1250, 3))
        far = self.centre + 2.5 * self.radius * rng.normal(size=(200, 3))
        self.points = np.concatenate([near, far])
        self.colors = np.concatenate([self.surface.colors[::16] * 255, np.full((200, 3), 90)]).astype(int)


@pytest.fixture(scope='module')
def capture(data):
    return Capture(data / 'gso' / NAME)


def write_ngp(folder, capture):
    """Write the layout of instant-ngp's scripts, with masks named by the frames."""
    frames = []
    for i, viewmat in enumerate(capture.viewmats):
        matrix = np.linalg.inv(viewmat.astype(np.float64))
        matrix[:, 1:3] *= -1
        frames.append(dict(file_path=f'./images/{i:04d}.jpg', mask_path=f'masks/{i:04d}.png', sharpness=31.5,
                           transform_matrix=matrix.tolist()))
        Image.fromarray(capture.images[i]).save(folder / 'images' / f'{i:04d}.jpg', quality=95)
        Image.fromarray(capture.masks[i]).save(folder / 'masks' / f'{i:04d}.png')
    content = dict(camera_angle_x=2 * math.atan(WIDTH / 2 / LENS['fl_x']), **LENS, k3=0, k4=0, is_fisheye=False,
                   w=float(WIDTH), h=float(HEIGHT), aabb_scale=4, frames=frames)
    (folder / 'transforms.json').write_text(json.dumps(content))


def write_colmap(folder, capture):
    model = folder / 'sparse' / '0'
    model.mkdir(parents=True)
    numbers = ' '.join(map(str, LENS.values()))
    (model / 'cameras.txt').write_text(f'# Camera list\n1 OPENCV {WIDTH} {HEIGHT} {numbers}\n')
    lines = []
    for i, viewmat in enumerate(capture.viewmats):
        x, y, z, w = Rotation.from_matrix(viewmat[:3, :3].astype(np.float64)).as_quat()
        shift = viewmat[:3, 3].tolist()
        lines.append(' '.join(map(str, (i + 1, w, x, y, z, *shift, 1, f'{i:04d}.jpg'))) + '\n\n')
        Image.fromarray(capture.images[i]).save(folder / 'images' / f'{i:04d}.jpg', quality=95)
        Image.fromarray(capture.masks[i]).save(folder / 'masks' / f'{i:04d}.jpg.png')
    (model / 'images.txt').write_text(''.join(lines))
    (model / 'points3D.txt').write_text(''.join(
        ' '.join(map(str, (i, *point, *color, 0.5, 1, 2, 3, 4))) + '\n'
        for i, (point, color) in enumerate(zip(capture.points.tolist(), capture.colors.tolist()))))


@pytest.mark.parametrize('layout', ['ngp', 'colmap', 'manifest'])
def test_gaussians_of_a_capture_lie_on_the_object(layout, capture, tmp_path):
    folder = tmp_path / 'bowl'
    for name in ('images', 'masks'):
        (folder / name).mkdir(parents=True)
    {'ngp': write_ngp, 'colmap': write_colmap, 'manifest': write_ngp}[layout](folder, capture)
    root = tmp_path
    if layout == 'manifest':
        root = tmp_path / 'objects.csv'
        root.write_text('uid,path,caption\nbowl,bowl,A bowl.\n')
    source = dict(ngp=NerfSource(), colmap=ColmapSource(up='z'), manifest=ManifestSource())[layout]
    (listed,) = source.list(root)
    triplet = make_triplet(listed, source, SETTINGS)
    assert triplet.quality['psnr'] > 30 and triplet.quality['psnr_foreground'] > 26
    begun = 'points of the reconstruction' if layout == 'colmap' else 'hull of the masks'
    assert begun in triplet.source['made'] and (triplet.source['pictures'], triplet.source['held_out']) == (24, 3)
    # Back to the frame of the file, where z is up.
    means = triplet.gaussians.means[triplet.gaussians.opacities > 0.5].double().numpy()
    means = triplet.source['radius'] * means + triplet.source['centre']
    x, y, z = means.T
    distance, _ = cKDTree(capture.surface.positions).query(np.stack([x, -z, y], 1))
    assert len(distance) > 500
    assert np.median(distance) < 0.04 * capture.radius
    assert (distance < 0.1 * capture.radius).mean() > (0.98 if layout == 'colmap' else 0.7)  # a hull closes the bowl
    assert 0.9 < triplet.source['radius'] / capture.radius < 1.1
