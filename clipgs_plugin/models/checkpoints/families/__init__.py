"""Families of point-cloud models, one module each. A family describes how its files name and store weights."""
from clipgs_plugin.models.checkpoints.families.family import Architecture, Family, MissingTensorError, Rule
from clipgs_plugin.models.checkpoints.families.gaussian_mae import GAUSSIAN_MAE
from clipgs_plugin.models.checkpoints.families.openshape import OPENSHAPE
from clipgs_plugin.models.checkpoints.families.point_bert import POINT_BERT
from clipgs_plugin.models.checkpoints.families.point_mae import POINT_MAE
from clipgs_plugin.models.checkpoints.families.recon import RECON
from clipgs_plugin.models.checkpoints.families.recon_plus_plus import RECON_PLUS_PLUS
from clipgs_plugin.models.checkpoints.families.ulip import ULIP
from clipgs_plugin.models.checkpoints.families.uni3d import UNI3D

# Detection tries them in this order, so families with more specific names come first.
FAMILIES = {family.name: family for family in (
    UNI3D, OPENSHAPE, RECON_PLUS_PLUS, ULIP, POINT_BERT, RECON, POINT_MAE, GAUSSIAN_MAE)}

__all__ = ['FAMILIES', 'Architecture', 'Family', 'MissingTensorError', 'Rule']
