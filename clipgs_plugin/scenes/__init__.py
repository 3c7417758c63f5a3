"""Objects of a splat scene: ways to split it, and what is done with the objects.

A way to split is a function of a :class:`~clipgs_plugin.structures.GaussianCloud` that returns the id of the object of
each Gaussian, (N,) int64, or -1; :class:`SceneObjects` gathers the objects of enough Gaussians. :func:`find_objects`
takes any of the ways, and :class:`LabelledScene` has what ``clipgs_plugin.apis.label_scene`` finds.
"""
from clipgs_plugin.scenes.balance import balance_colors
from clipgs_plugin.scenes.clusters import split_by_clusters
from clipgs_plugin.scenes.colors import colored, distinct_colors
from clipgs_plugin.scenes.embedding import embed_objects
from clipgs_plugin.scenes.finding import SplitOptions, find_objects
from clipgs_plugin.scenes.floor import find_floor
from clipgs_plugin.scenes.folder import check_scene_folder, write_scene_folder
from clipgs_plugin.scenes.label_files import LabelSource, find_labels, read_labels
from clipgs_plugin.scenes.labelled import LabelledScene
from clipgs_plugin.scenes.labels import split_by_labels
from clipgs_plugin.scenes.objects import MIN_GAUSSIANS, SceneObjects
from clipgs_plugin.scenes.replacing import is_replaced
from clipgs_plugin.scenes.scene import Scene
from clipgs_plugin.scenes.scores import TextScores
from clipgs_plugin.scenes.spheres import split_by_spheres
from clipgs_plugin.scenes.walls import find_room, find_walls

__all__ = ['MIN_GAUSSIANS', 'LabelSource', 'LabelledScene', 'Scene', 'SceneObjects', 'SplitOptions', 'TextScores',
           'balance_colors', 'check_scene_folder', 'colored', 'distinct_colors', 'embed_objects', 'find_floor',
           'find_labels', 'find_objects', 'find_room', 'find_walls', 'is_replaced', 'read_labels',
           'split_by_clusters', 'split_by_labels', 'split_by_spheres', 'write_scene_folder']
