"""The picture of cameras agrees with the conversions."""
import numpy as np
import torch

from clipgs_plugin import ops
from clipgs_plugin.tools.dev import draw_cameras
from clipgs_plugin.tools.dev.draw_cameras import AXES, FORWARD, RIGHT, UP


def test_drawn_axes_are_those_of_the_conversions():
    here = torch.eye(4)[None]
    pytorch3d = ops.cameras_to_pytorch3d(here, torch.eye(3), 8, 6)['R'][0].T  # rows are its axes in OpenCV's
    for (_, drawn), axes in zip(AXES, (torch.eye(3), ops.flip_camera_axes(here)[0, :3, :3], pytorch3d)):
        assert np.allclose(drawn, axes.numpy() @ np.stack([RIGHT, -UP, FORWARD]))


def test_the_picture_is_written(tmp_path):
    assert draw_cameras.main(['-o', str(tmp_path / 'cameras.svg')]) == 0
    assert (tmp_path / 'cameras.svg').read_text().count('<path') > 50
