"""Operations on points, cameras, images and Gaussians.

A test compares each fast kernel with its plain reference in torch.
"""
from clipgs_plugin.ops.backends import available_backends
from clipgs_plugin.ops.cameras import flip_camera_axes, intrinsics, look_at, sphere_cameras
from clipgs_plugin.ops.image_metrics import psnr, ssim
from clipgs_plugin.ops.neighbors import ball_query, knn
from clipgs_plugin.ops.ordering import canonical_order, cell_keys, curve_order, order_keys
from clipgs_plugin.ops.rendering import render, render_batch
from clipgs_plugin.ops.rotations import (
    axis_change,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
)
from clipgs_plugin.ops.sampling import farthest_point_sample, group
from clipgs_plugin.ops.spherical_harmonics import eval_sh, eval_sh_basis, rotate_sh

__all__ = [
    'available_backends', 'axis_change', 'ball_query', 'canonical_order', 'cell_keys', 'curve_order',
    'eval_sh', 'eval_sh_basis', 'farthest_point_sample', 'flip_camera_axes', 'group', 'intrinsics', 'knn', 'look_at',
    'matrix_to_quaternion', 'order_keys', 'psnr', 'quaternion_multiply', 'quaternion_to_matrix', 'render',
    'render_batch', 'rotate_sh', 'sphere_cameras', 'ssim',
]
