"""Fits of Gaussians to views of an object."""
from clipgs_plugin.generation.fitting.optimise import Fitted, fit, fit_many
from clipgs_plugin.generation.fitting.settings import PRESETS, FitSettings

__all__ = ['PRESETS', 'FitSettings', 'Fitted', 'fit', 'fit_many']
