"""Captions of objects, by rules and by models."""
from clipgs_plugin.generation.captions.models import Captioner, CaptionRanker, TransformersCaptioner, model_captions
from clipgs_plugin.generation.captions.rules import CaptionRules, captions_for, name_phrase, phrase, unique_captions

__all__ = ['CaptionRanker', 'CaptionRules', 'Captioner', 'TransformersCaptioner', 'captions_for', 'model_captions',
           'name_phrase', 'phrase', 'unique_captions']
