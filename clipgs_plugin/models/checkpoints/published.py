"""The encoder of a published checkpoint by its name in the catalogue."""
from __future__ import annotations

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.registry import MODELS
from clipgs_plugin.registry.catalogue import load_catalogue


def is_published(backbone: object) -> bool:
    """Whether a backbone's config names a checkpoint of the catalogue in place of a type."""
    name = backbone.get('type') if isinstance(backbone, dict) else backbone
    return isinstance(name, str) and name not in MODELS and name in load_catalogue('checkpoints')


def published_encoder(backbone: str | dict, tokenizer: dict | None = None,
                      init_cfg: dict | list[dict] | None = None) -> tuple[dict, dict, dict | list[dict]]:
    """Configs of the encoder that a published checkpoint is of, with its weights and its input contract.

    Args:
        backbone: Name of the checkpoint, or ``dict(type=NAME, ...)`` with options of its backbone.
        tokenizer: Options that go before those of the contract.
        init_cfg: Initialisation; the weights of the checkpoint where None.

    Returns:
        Configs of tokenizer and backbone, and the initialisation.
    """
    options = dict(backbone) if isinstance(backbone, dict) else dict(type=backbone)
    name = options.pop('type')
    entry = load_catalogue('checkpoints')[name]
    contract = Contract.from_dict(entry['contract'])
    tokenizer = {'type': 'clipgs_plugin.GSTokenizer', **contract.tokenizer_options(),
                 **entry['architecture']['tokenizer'], **(tokenizer or {})}
    init_cfg = init_cfg or dict(type='PointCloudPretrained', checkpoint=name)
    return tokenizer, {**entry['architecture']['backbone'], **options}, init_cfg
