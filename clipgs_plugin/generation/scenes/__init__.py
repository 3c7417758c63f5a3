"""Scenes of scanned objects whose Gaussians are known by object: composed, lit, rendered, fitted and labelled."""
from clipgs_plugin.generation.scenes.files import TruthScene, read_scene, scene_folders, write_scene
from clipgs_plugin.generation.scenes.make import MadeScene, SceneSettings, make_scene

__all__ = ['MadeScene', 'SceneSettings', 'TruthScene', 'make_scene', 'read_scene', 'scene_folders', 'write_scene']
