"""Categories of appearance, in groups of one shape, with their tones and wears."""
from clipgs_plugin.toy_world.appearances.balls import BALLS
from clipgs_plugin.toy_world.appearances.boxes import BOXES
from clipgs_plugin.toy_world.appearances.cans import CANS
from clipgs_plugin.toy_world.appearances.discs import DISCS
from clipgs_plugin.toy_world.appearances.wears import TONES, WEARS

# The order is part of the world: object_specs shuffles the categories from it.
APPEARANCES = {**BALLS, **BOXES, **CANS, **DISCS}

__all__ = ['APPEARANCES', 'TONES', 'WEARS']
