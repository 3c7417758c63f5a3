"""Optimisation of Gaussians until they look like the views of an object."""
from clipgs_plugin.generation.fitting.optimise import PRESETS, FitSettings, Fitted, fit, fit_many

__all__ = ['PRESETS', 'FitSettings', 'Fitted', 'fit', 'fit_many']
