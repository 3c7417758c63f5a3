"""Operations on points and Gaussians; every fast kernel stands beside a plain one."""
from clipgs_plugin.ops.rotations import (
    axis_change,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
)
from clipgs_plugin.ops.spherical_harmonics import eval_sh, eval_sh_basis, rotate_sh

__all__ = [
    'axis_change', 'eval_sh', 'eval_sh_basis', 'matrix_to_quaternion', 'quaternion_multiply', 'quaternion_to_matrix',
    'rotate_sh',
]
