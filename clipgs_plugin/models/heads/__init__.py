"""Few-shot heads: classifiers on frozen features, and fine-tuning. Importing the package registers them."""
from clipgs_plugin.models.heads.base import FewShotHead
from clipgs_plugin.models.heads.clap import CLAP, class_multipliers
from clipgs_plugin.models.heads.clip_adapter import CLIPAdapter
from clipgs_plugin.models.heads.fine_tuned import FineTuned
from clipgs_plugin.models.heads.linear_probe import LinearProbe
from clipgs_plugin.models.heads.prototype import PrototypeHead
from clipgs_plugin.models.heads.tip_adapter import TipAdapter, TipAdapterF
from clipgs_plugin.models.heads.zero_shot import ZeroShotHead
from clipgs_plugin.models.heads.zero_shot_linear import ZeroShotLinear

__all__ = ['CLAP', 'CLIPAdapter', 'FewShotHead', 'FineTuned', 'LinearProbe', 'PrototypeHead', 'TipAdapter',
           'TipAdapterF', 'ZeroShotHead', 'ZeroShotLinear', 'class_multipliers']
