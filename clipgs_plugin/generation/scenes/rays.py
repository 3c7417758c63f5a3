"""Segments between points, and whether surfaces block them."""
from __future__ import annotations

import numpy as np
from numpy import ndarray

from clipgs_plugin.generation.objects import Mesh
from clipgs_plugin.generation.rendering import raycast


class Blockers:
    """Triangles that block segments.

    Args:
        meshes: Meshes, which block on both sides.

    Raises:
        ImportError: embreex is not installed.
    """

    def __init__(self, *meshes: Mesh) -> None:
        TriangleMesh, EmbreeScene = raycast.require()
        self._scene = EmbreeScene(robust=True)
        TriangleMesh(self._scene, np.concatenate([part.triangles for mesh in meshes for part in mesh.parts]))

    def blocked(
        self,
        origins: ndarray,   # (n, 3)
        ends: ndarray,      # (n, 3)
        slack: float = 0.0,
    ) -> ndarray:           # (n,) bool
        """Mark the segments that meet a triangle before the last ``slack``, a length, of their way."""
        ways = np.asarray(ends, np.float64) - origins
        lengths = np.linalg.norm(ways, axis=1)
        directions = (ways / np.maximum(lengths, 1e-12)[:, None]).astype(np.float32)
        found = self._scene.run(np.ascontiguousarray(origins, np.float32), directions, query='OCCLUDED',
                                dists=np.maximum(lengths - slack, 0).astype(np.float32))
        return found >= 0
