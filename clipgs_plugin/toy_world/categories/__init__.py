"""Categories of shape: one small function each, from a source of variation to the parts of an object."""
from clipgs_plugin.toy_world.categories.base import Category, Vary
from clipgs_plugin.toy_world.categories.figures import FIGURES
from clipgs_plugin.toy_world.categories.furniture import FURNITURE
from clipgs_plugin.toy_world.categories.outdoors import OUTDOORS
from clipgs_plugin.toy_world.categories.tools import TOOLS
from clipgs_plugin.toy_world.categories.vehicles import VEHICLES
from clipgs_plugin.toy_world.categories.vessels import VESSELS

# The order is part of the world: object_specs shuffles the categories from it.
SHAPES = {**FURNITURE, **VEHICLES, **VESSELS, **OUTDOORS, **FIGURES, **TOOLS}

__all__ = ['SHAPES', 'Category', 'Vary']
