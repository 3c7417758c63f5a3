"""tools/dev/draw_conventions.py agrees with the library on what it draws."""
import gzip

import numpy as np
import torch

from clipgs_plugin import GaussianCloud, ops, write_gaussians
from clipgs_plugin.tools.dev import draw_conventions

MODEL, INRIA, GLTF = (np.array(frame) for frame in draw_conventions.FRAMES.values())


def test_frames_are_right_handed_and_those_of_the_files(tmp_path):
    assert [round(np.linalg.det(frame)) for frame in (MODEL, INRIA, GLTF)] == [1, 1, 1]
    spot = np.array([1.0, 2.0, 3.0])  # right, up, back
    cloud = GaussianCloud(torch.from_numpy(INRIA @ spot)[None].float(), torch.tensor([[1.0, 0, 0, 0]]),
                          torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3))
    write_gaussians(cloud, tmp_path / 'spot.spz', version=2)
    body = gzip.decompress((tmp_path / 'spot.spz').read_bytes())[16:]  # after the header
    stored = np.frombuffer(body[:9], np.uint8).reshape(3, 3) @ [1, 256, 65536] / 4096
    assert np.array_equal(stored, MODEL @ spot)
    upright = cloud.transform(ops.axis_change('-y', 'y'))
    assert np.allclose(upright.means[0], MODEL @ spot)


def test_camera_frames_are_those_of_the_cameras():
    flip = ops.flip_camera_axes(torch.eye(4))[:3, :3].numpy()
    assert np.array_equal(flip @ INRIA, MODEL)


def test_pictures_are_those_of_the_page(root, tmp_path):
    assert draw_conventions.main(['-o', str(tmp_path)]) == 0
    drawn = {path.name for path in tmp_path.iterdir()}
    page = (root / 'docs' / 'conventions.md').read_text(encoding='utf-8')
    assert drawn == {name for name in drawn if f'images/{name}' in page and (root / 'docs' / 'images' / name).is_file()}
    assert len(drawn) == 6 and all(path.read_text(encoding='utf-8').startswith('<?xml') for path in tmp_path.iterdir())
