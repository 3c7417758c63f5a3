"""Readers of made scenes."""
from pathlib import Path

import numpy as np
from harness import Target
from targets_io import cloud

from clipgs_plugin.generation.scenes import MadeScene, read_scene, write_scene
from clipgs_plugin.generation.scenes.files import TruthScene

OBJECTS = [dict(id=i, uid=f'o{i}', name='a cup', category=None, up='y', yaw_degrees=30.0, scale=1.5,
                low=[0.0, 0.0, 0.0], high=[0.1, 0.2, 0.3]) for i in (1, 2)]


def scene(folder: Path) -> Path:
    """Write a scene of two objects."""
    labels = np.arange(12) % 4 - 1
    write_scene(MadeScene(cloud(12, 0), labels, dict(format_version=1, gaussians=12, objects=OBJECTS),
                          np.zeros((4, 8, 3), np.uint8)), folder)
    return folder


def labels_of_no_object(found: TruthScene) -> str | None:
    """Check that the labels are those of objects, and one a Gaussian."""
    if len(found.labels) != len(found.cloud):
        return f'{len(found.labels)} labels of {len(found.cloud)} Gaussians'
    if not set(found.labels.tolist()) <= {-1, 0, *(item['id'] for item in found.objects)}:
        return f'labels {sorted(set(found.labels.tolist()))} of {len(found.objects)} objects'


TARGETS = [Target('made-scene', scene, read_scene, labels_of_no_object, kept=('preview.png',))]
