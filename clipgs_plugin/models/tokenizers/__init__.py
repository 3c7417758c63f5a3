"""Tokenizers, and the encoders of their patches."""
from clipgs_plugin.models.tokenizers.gs_tokenizer import GSTokenizer
from clipgs_plugin.models.tokenizers.patch_encoder import PatchEncoder
from clipgs_plugin.models.tokenizers.patches import Patches
from clipgs_plugin.models.tokenizers.point_tokenizer import PointTokenizer
from clipgs_plugin.models.tokenizers.refinement import OrderedConvs, Refinement
from clipgs_plugin.models.tokenizers.set_abstraction import SetAbstraction
from clipgs_plugin.models.tokenizers.soft_patch_encoder import SoftPatchEncoder
from clipgs_plugin.models.tokenizers.tokens import Tokens

__all__ = ['GSTokenizer', 'OrderedConvs', 'PatchEncoder', 'Patches', 'PointTokenizer', 'Refinement', 'SetAbstraction',
           'SoftPatchEncoder', 'Tokens']
