"""The toy world: procedural objects with looks and captions, determined by a seed alone.

    specs = object_specs(1200, seed=0, split='train')
    toy = make_object(specs[0])           # toy.gaussians, toy.category, toy.captions, toy.attributes
    views = render_views(specs[0])        # (8, 64, 64, 3) uint8
"""
from clipgs_plugin.toy_world.appearances import TONES, WEARS
from clipgs_plugin.toy_world.patterns import COLORS, PATTERNS
from clipgs_plugin.toy_world.specs import CATEGORIES, ObjectSpec, object_specs
from clipgs_plugin.toy_world.world import ToyObject, make_object, render_views

__all__ = ['CATEGORIES', 'COLORS', 'PATTERNS', 'TONES', 'WEARS', 'ObjectSpec', 'ToyObject', 'make_object',
           'object_specs', 'render_views']
