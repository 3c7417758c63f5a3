"""The encoder of a published checkpoint by its name in the catalogue."""
from __future__ import annotations

import difflib

from torch import nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue


def is_published(backbone: object) -> bool:
    """Whether a backbone's config names a checkpoint of the catalogue in place of a type.

    Raises:
        ValueError: It names neither a checkpoint nor a type.
    """
    name = backbone.get('type') if isinstance(backbone, dict) else backbone
    if not isinstance(name, str):
        return False
    catalogue = load_catalogue('checkpoints')
    if name in catalogue:
        return True
    if MODELS.get(name) is None:
        close = difflib.get_close_matches(name, [*catalogue, *_backbones()], n=3, cutoff=0.4) or list(catalogue)
        raise ValueError(f'backbone={name!r} is neither a published checkpoint nor a registered type; close names are '
                         f'{", ".join(close)} (tools/list_backbones.py prints all)')
    if isinstance(backbone, str):
        raise ValueError(f'backbone={name!r} is a type and says nothing of its size; write '
                         f'backbone=dict(type={name!r}, ...)')
    return False


def _backbones() -> list[str]:
    from clipgs_plugin.models import backbones
    return list(backbones.__all__)


def published_encoder(backbone: str | dict, tokenizer: dict | None = None,
                      init_cfg: dict | list[dict] | None = None) -> tuple[dict, dict, dict | list[dict]]:
    """Configs of the encoder that a published checkpoint is of, with its weights and its input contract.

    Args:
        backbone: Name of the checkpoint, or ``dict(type=NAME, ...)`` with options of its backbone.
        tokenizer: Options that go before those of the contract.
        init_cfg: Initialisation; the weights of the checkpoint where None.

    Returns:
        Configs of tokenizer and backbone, and the initialisation.

    Raises:
        ValueError: The tokenizer is built already.
    """
    if isinstance(tokenizer, nn.Module):
        raise ValueError(f'a published backbone comes with its own tokenizer; give tokenizer=dict(...) with what is to '
                         f'differ from its contract, or leave it out, in place of a {type(tokenizer).__name__}')
    options = dict(backbone) if isinstance(backbone, dict) else dict(type=backbone)
    name = options.pop('type')
    entry = load_catalogue('checkpoints')[name]
    contract = Contract.from_dict(entry['contract'])
    tokenizer = {'type': 'clipgs_plugin.GSTokenizer', **contract.tokenizer_options(),
                 **entry['architecture']['tokenizer'], **(tokenizer or {})}
    init_cfg = init_cfg or dict(type='PointCloudPretrained', checkpoint=name)
    return tokenizer, {**entry['architecture']['backbone'], **options}, init_cfg
