"""Operations on points and Gaussians; every fast kernel stands beside a plain one."""
from clipgs_plugin.ops.rotations import matrix_to_quaternion, quaternion_multiply, quaternion_to_matrix

__all__ = ['matrix_to_quaternion', 'quaternion_multiply', 'quaternion_to_matrix']
