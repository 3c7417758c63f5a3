"""From a published file to the tensors of an encoder, with a report of what became of each."""
from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.families.gaussian_mae import GAUSSIAN_MAE
from clipgs_plugin.models.checkpoints.families.openshape import OPENSHAPE
from clipgs_plugin.models.checkpoints.families.point_bert import POINT_BERT
from clipgs_plugin.models.checkpoints.families.point_mae import POINT_MAE
from clipgs_plugin.models.checkpoints.families.recon import RECON
from clipgs_plugin.models.checkpoints.families.recon_plus_plus import RECON_PLUS_PLUS
from clipgs_plugin.models.checkpoints.families.ulip import ULIP
from clipgs_plugin.models.checkpoints.families.uni3d import UNI3D
from clipgs_plugin.models.checkpoints.family import (
    HEAD_WIDTH,
    PATCH_ENCODER,
    Architecture,
    Family,
    MissingTensorError,
)
from clipgs_plugin.models.checkpoints.reading import read_checkpoint, read_metadata
from clipgs_plugin.models.checkpoints.report import LoadReport, some
from clipgs_plugin.models.parts import PUBLISHED_PARTS, part_of
from clipgs_plugin.models.tokenizers.gs_tokenizer import GSTokenizer
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures.attributes import num_channels

# In the order in which they are tried: the more particular names first.
FAMILIES = {family.name: family for family in (
    UNI3D, OPENSHAPE, RECON_PLUS_PLUS, ULIP, POINT_BERT, RECON, POINT_MAE, GAUSSIAN_MAE)}
DEFAULT_PARTS = tuple(part for part in PUBLISHED_PARTS if part != 'projection')
CHECKPOINT_FOLDER = 'CLIPGS_CHECKPOINTS'
FINETUNED = 'cls_head_finetune.'
# Batch norms count batches only for a kind of averaging nobody uses; old files lack the counter.
COUNTER = 'num_batches_tracked'
OWN_NAMES = ('encoder.tokenizer.', 'tokenizer.patch_encoder.')


@dataclass(frozen=True)
class ForeignCheckpoint:
    """A published file, read and understood, but not yet in a model.

    Attributes:
        path: The file.
        family: Its family.
        state: Its tensors as it names and stores them.
        tensors: By the names of an encoder.
        sources: Names in the file by those of an encoder.
        unused: Names in the file that belong to no part, and why.
        architecture: The sizes of its model.
        contract: The input it was trained with.
    """

    path: str
    family: Family
    state: dict[str, Tensor]
    tensors: dict[str, Tensor]
    sources: dict[str, str]
    unused: dict[str, str]
    architecture: Architecture
    contract: Contract

    @property
    def attributes(self) -> tuple[str, ...]:
        """What the patch encoder of the file sees of a point."""
        return first_conv_attributes(self)

    @property
    def lost_projection(self) -> list[str]:
        """Names of the projection in the file, where files of its family have one and this has not."""
        family, prefix = self.family, self.family.prefix(self.state)
        if family.projection_bias is None or prefix in family.unprojected or self.architecture.projection:
            return []
        return [rule.source for rule in family.whole_rules(prefix) if rule.target.startswith('projection.')]


def open_point_cloud_checkpoint(checkpoint: str | Path, family: str = 'auto', name: str | None = None,
                                finetuned: bool = False, trust_pickle: bool = False) -> ForeignCheckpoint:
    """Read a published file and tell its family, its sizes and its contract.

    Args:
        checkpoint: A path, or a name of the catalogue, whose file is looked for in ``$CLIPGS_CHECKPOINTS`` and in
            ``./checkpoints``.
        family: One of ``FAMILIES``, which the file is then held to, or ``'auto'``.
        name: The entry of the catalogue that a path is said to be, which it is then held to.
        finetuned: Accept a file that was fine-tuned to classify.
        trust_pickle: Run whatever code the file holds. Only for files whose origin you trust.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read or understood, or is not what it is said to be.
    """
    catalogue = load_catalogue('checkpoints')
    if name is None and str(checkpoint) in catalogue:
        name = str(checkpoint)
    elif name is not None and name not in catalogue:
        raise ValueError(f'name={name!r}: not in the catalogue of checkpoints, which has {some(sorted(catalogue), 99)}')
    path = _find(checkpoint, catalogue)
    state, metadata = read_checkpoint(path, trust_pickle), read_metadata(path)
    kind = _family(state, path, family if name is None or family != 'auto' else catalogue[name]['family'])
    if not finetuned and any(FINETUNED in key for key in state):
        raise ValueError(f'{path}: was fine-tuned to classify (it has {FINETUNED}*), and a pre-trained file of '
                         f'{kind.name} was expected; give that, or say so if you mean this one (finetuned=True, '
                         '--finetuned)')
    tensors, sources, unused = kind.translate(state)
    try:
        architecture = kind.architecture(tensors)
    except MissingTensorError as error:
        lost = kind.source_of(error.name, kind.prefix(state))
        raise ValueError(f'{LoadReport(str(path), kind.name, unused=unused, missing=[lost])}\nIt tells the size of the '
                         'model; the file is not whole, download it again') from error
    except ValueError as error:
        raise ValueError(f'{path}: is of family {kind.name!r} but {error}') from error
    found = ForeignCheckpoint(str(path), kind, state, tensors, sources, unused, architecture,
                              _contract(kind, tensors, architecture, path, metadata, name))
    if name is not None:
        _hold_to_entry(found, name, catalogue[name])
    return found


def load_point_cloud_weights(
    encoder: nn.Module,
    checkpoint: str | Path | ForeignCheckpoint,
    family: str = 'auto',
    parts: Sequence[str] = DEFAULT_PARTS,
    name: str | None = None,
    finetuned: bool = False,
    widen: bool = True,
) -> LoadReport:
    """Load a published point-cloud model into the parts of an encoder that have its form.

    A first convolution of fewer channels than the encoder's is widened with zeros: the new channels do nothing yet.

    Args:
        encoder: A GSEncoder or a PointCloudModel.
        checkpoint, family, name, finetuned: As :func:`open_point_cloud_checkpoint` takes them, or what it gave.
        parts: Which parts to take, of ``PUBLISHED_PARTS``; nothing else of the file need fit.
        widen: Whether a first convolution may be widened.

    Returns:
        What was loaded, what of the file was not used and why, and where the encoder disagrees with the contract.

    Raises:
        TypeError: The module is not an encoder of tokenizer and backbone.
        ValueError: The parts or the family are unknown, or the file does not fit: something that the encoder needs
            is missing, is of another shape, or the file has blocks that the encoder has not. Nothing is loaded then.
    """
    parts = (parts,) if isinstance(parts, str) else tuple(parts)
    if not parts or set(parts) - set(PUBLISHED_PARTS):
        raise ValueError(f'parts={parts}: expected some of {PUBLISHED_PARTS}')
    if getattr(encoder, 'tokenizer', None) is None or not hasattr(encoder, 'backbone'):
        raise TypeError('weights of a point-cloud model fit an encoder of a tokenizer and a backbone over tokens, a '
                        f'GSEncoder or a PointCloudModel, got a {type(encoder).__name__}; in a config '
                        'PointCloudPretrained belongs into the init_cfg of the GSEncoder')
    if not isinstance(checkpoint, ForeignCheckpoint):
        checkpoint = open_point_cloud_checkpoint(checkpoint, family, name, finetuned)
    _check_backbone(encoder.backbone, checkpoint, parts)
    kind, own, notes = checkpoint.family, encoder.state_dict(), []
    found = {key: value for key, value in checkpoint.tensors.items() if _part(key, encoder) in parts}
    if 'patch_encoder' in parts:
        notes += _fit_first_conv(found, own, encoder, checkpoint, widen)
    wanted = [key for key in own if part_of(key, encoder.backbone) in parts]
    for key in kind.zeros:
        if key in wanted and key not in found:
            found[key] = torch.zeros_like(own[key])
    unused = dict(checkpoint.unused)
    unused.update((source, f'of the part {_part(key, encoder)!r}, which was not asked for')
                  for key, source in checkpoint.sources.items() if key not in found)
    report = LoadReport(
        path=checkpoint.path, family=kind.name, unused=unused, notes=notes,
        disagreements=disagreements(checkpoint.contract, encoder),
        loaded=[key for key in wanted if key in found],
        missing=[key for key in wanted if key not in found and not key.endswith(COUNTER)],
        unplaced=[key for key in found if key not in own],
        mismatched=[_form(key, found[key], own[key]) for key in wanted
                    if key in found and _form(key, found[key], own[key])])
    if not report.complete:
        raise ValueError(f'{report}\nNothing was loaded. Weights of {kind.name} fit a {kind.backbone} of the same size '
                         f'behind its patch encoder; this file is of {checkpoint.architecture.backbone} behind '
                         f'{checkpoint.architecture.tokenizer}, the encoder has a {type(encoder.backbone).__name__}')
    with torch.no_grad():
        for key in report.loaded:
            own[key].copy_(found[key])
    return report


def _form(key: str, given: Tensor, own: Tensor) -> str:
    """What is wrong with a tensor for its place, in words; empty where nothing is."""
    if given.shape != own.shape:
        return f'{key} {tuple(given.shape)} for {tuple(own.shape)}'
    if given.is_floating_point() != own.is_floating_point() and not key.endswith(COUNTER):
        return f'{key} {given.dtype} for {own.dtype}'
    return '' if bool(given.isfinite().all()) else f'{key} has values that are NaN or infinite'


def _part(key: str, encoder: nn.Module) -> str:
    """The part of a tensor of a file, which the encoder need not have."""
    try:
        return part_of(key, encoder.backbone)
    except ValueError:  # of another backbone, which may be in its place for the patch encoder alone
        return 'patch_encoder' if key.startswith(PATCH_ENCODER) else 'blocks'


def _check_backbone(backbone: nn.Module, checkpoint: ForeignCheckpoint, parts: Sequence[str]) -> None:
    """Refuse blocks that compute something else, or with other heads, which no shape would tell."""
    from clipgs_plugin.registry import MODELS
    if 'blocks' not in parts:
        return
    kind, published = checkpoint.family, checkpoint.architecture.backbone
    fits = [kind.backbone, *_SAME_LAYERS.get(kind.backbone, ())]
    if not isinstance(backbone, tuple(MODELS.get(name) for name in fits)):
        raise ValueError(f'{checkpoint.path}: weights of {kind.name} fit a {kind.backbone} of the same size, this '
                         f'encoder has a {type(backbone).__name__}; set backbone=dict(type={kind.backbone!r}, ...)')
    heads = getattr(backbone, 'num_heads', None)
    if heads != published.get('num_heads', heads):
        raise ValueError(f'{checkpoint.path}: its {published["num_heads"]} heads are {HEAD_WIDTH} wide, as those of '
                         f'{kind.name} are, the {type(backbone).__name__} has num_heads={heads}; set '
                         f'num_heads={published["num_heads"]}')


# Backbones of the same layers under another name.
_SAME_LAYERS = {'PointBERT': ('ULIP',), 'ULIP': ('PointBERT',), 'PointMAE': ('GaussianMAE',),
                'GaussianMAE': ('PointMAE',)}


def disagreements(contract: Contract, encoder: nn.Module) -> list[str]:
    """Where a GSEncoder differs from what a model was trained with, naming both sides; none for the model itself."""
    tokenizer, width, lines = encoder.tokenizer, getattr(encoder, 'embed_dim', None), []
    if not isinstance(tokenizer, GSTokenizer):
        return lines
    for option, trained in contract.tokenizer_options().items():
        if option != 'point_attributes' and getattr(tokenizer, option) != trained:  # widening says so itself
            lines.append(f'was trained with {option}={trained!r}, the tokenizer has '
                         f'{option}={getattr(tokenizer, option)!r}')
    if contract.embed_dim not in (None, width):
        lines.append(f'embeds into {contract.teacher} of width {contract.embed_dim}, the encoder has '
                     f'embed_dim={width}: its projection is another')
    return lines


def _find(checkpoint: str | Path, catalogue: Mapping[str, dict]) -> Path:
    """The file of a path or of a name in the catalogue."""
    path = Path(checkpoint).expanduser()
    entry = catalogue.get(str(checkpoint))
    if path.is_file():
        return path
    if entry is None:
        close = difflib.get_close_matches(str(checkpoint), catalogue, n=3)
        if path.is_dir():
            raise IsADirectoryError(f'{path} is a folder; name the file in it')
        raise FileNotFoundError(f'{path}: no such checkpoint; download it and give its path'
                                + (f', or did you mean {", ".join(close)}?' if close else ''))
    if entry.get('file') is None:
        raise FileNotFoundError(f'{checkpoint}: its weights have not been published; see {entry["page"]}')
    folders = [Path(os.environ[CHECKPOINT_FOLDER])] if os.environ.get(CHECKPOINT_FOLDER) else []
    folders.append(Path('checkpoints'))
    # By the path of the page, by the name of the catalogue, or by its own where no other file is called the same.
    published, own = entry['file'], Path(entry['file']).name
    names = [published, *(f'{checkpoint}{end}' for end in ('.safetensors', '.pt', '.pth'))]
    if sum(Path(other['file'] or '').name == own for other in catalogue.values()) == 1:
        names.append(own)
    for folder in folders:
        for file in names:
            if (folder / file).is_file():
                return folder / file
    raise FileNotFoundError(
        f'{checkpoint}: download {entry["file"]} from {entry["page"]} and put it, under this name or as '
        f'{checkpoint}.pt, into {" or ".join(map(str, folders))} (${CHECKPOINT_FOLDER} names another folder), or give '
        'its path')


def detect_family(state: Mapping[str, Tensor], path: str | Path) -> Family:
    """The family whose names a checkpoint has.

    Raises:
        ValueError: It has those of none, or lacks what every file of its family has.
    """
    fits = [family for family in FAMILIES.values() if family.prefix(state) is not None]
    # Point-MAE and Gaussian-MAE differ in what they see, not in their names.
    fits = [family for family in fits if _sees_known(family, state)] or fits
    if fits:
        return fits[0]
    if any(key.startswith(OWN_NAMES) for key in state):
        raise ValueError(f'{path}: was trained here, so its names are those of a GSEncoder already; start from it with '
                         "load_from, or an init_cfg of type 'Pretrained', or bring its point-cloud part into a "
                         "family's form with export_point_cloud_checkpoint")
    close = max(FAMILIES.values(), key=lambda family: (len(_known_names(family, state)), _traces(family, state)))
    _refuse_incomplete(close, state, path)
    raise ValueError(f'{path}: its names are of none of the families {sorted(FAMILIES)}; it begins '
                     f'{some(list(state))}')


def _known_names(family: Family, state: Mapping[str, Tensor]) -> set[str]:
    """Names, after the prefix that fits most, that a file has of those that the family loads; none of another's."""
    starts = tuple(rule.source for rule in family.rules)
    if any(mark in key for mark in family.absent for key in state):
        return set()
    return max(({key.removeprefix(prefix) for key in state
                 if key.startswith(prefix) and key.removeprefix(prefix).startswith(starts)}
                for prefix in family.prefixes), key=len)


def _traces(family: Family, state: Mapping[str, Tensor]) -> int:
    """How many of the modules that a family is told by have left anything in a file."""
    modules = [name.removesuffix('.weight').rpartition('.')[-1] for name in family.signature]
    return sum(any(module in key.split('.') for key in state) for module in modules)


def _refuse_incomplete(family: Family, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse a file that has most names of a family and not those by which it is told, with the report."""
    known = _known_names(family, state)
    if len(known) > len(state) // 4:
        missing = [name for name in family.signature if name not in known]
        raise ValueError(f'{LoadReport(str(path), family.name, missing=missing)}\nEvery file of {family.name} has '
                         'them; this one is not whole, download it again')


def _sees_known(family: Family, state: Mapping[str, Tensor]) -> bool:
    tensors, _, _ = family.translate(state)
    first = next((tensors[key] for key in (PATCH_ENCODER + 'first_conv.0.weight', PATCH_ENCODER + 'mlp_convs.0.weight')
                  if key in tensors), None)
    return first is not None and first.shape[1] in family.attributes


def _family(state: Mapping[str, Tensor], path: Path, name: str) -> Family:
    if name == 'auto':
        return detect_family(state, path)
    if name not in FAMILIES:
        raise ValueError(f"family={name!r}: expected 'auto' or one of {sorted(FAMILIES)}")
    if FAMILIES[name].prefix(state) is None:
        if not any(family.prefix(state) is not None for family in FAMILIES.values()):
            _refuse_incomplete(FAMILIES[name], state, path)
        raise ValueError(f'{path}: is not of family {name!r} but of {detect_family(state, path).name!r}')
    return FAMILIES[name]


def first_conv_attributes(checkpoint: ForeignCheckpoint) -> tuple[str, ...]:
    """What the columns of a file's first convolution mean.

    Raises:
        ValueError: Their number is none of the family's.
    """
    key = PATCH_ENCODER + _first_layer(checkpoint.architecture) + '.weight'
    columns, known = checkpoint.tensors[key].shape[1], checkpoint.family.attributes
    if columns not in known:
        raise ValueError(f'{checkpoint.path}: its patch encoder sees {columns} channels; those of '
                         f'{checkpoint.family.name} see {" or ".join(map(str, known))}')
    return known[columns]


def _first_layer(architecture: Architecture) -> str:
    from clipgs_plugin.registry import MODELS
    return MODELS.get(architecture.tokenizer['patch_encoder']['type']).first_layer


def _fit_first_conv(found: dict[str, Tensor], own: Mapping[str, Tensor], encoder: nn.Module,
                    checkpoint: ForeignCheckpoint, widen: bool) -> list[str]:
    """Bring the first convolution to the channels of the tokenizer; returns what to note in the report."""
    key = PATCH_ENCODER + _first_layer(checkpoint.architecture) + '.weight'
    meant, seen = checkpoint.attributes, encoder.tokenizer.point_attributes
    if key not in own or meant == seen:
        return []
    if not widen:
        raise ValueError(f'{checkpoint.path}: sees {meant}, the model sees {seen}: they are different models of '
                         f'{checkpoint.family.name}; give the file of the one, or build the other')
    found[key] = widen_columns(found[key], meant, seen, checkpoint.path)
    return [f'widened from {", ".join(meant)} to {", ".join(seen)}: the new channels begin with zero weights']


def widen_columns(weight: Tensor, meant: Sequence[str], seen: Sequence[str], path: str | Path) -> Tensor:
    """The columns of a published first convolution at the channels of an encoder's, zeros at all others.

    Args:
        weight: (out, channels of ``meant``, ...).
        meant: Attributes that the columns are of, in their order.
        seen: Attributes that the encoder sees, in its order.
        path: The file, for the error.

    Returns:
        (out, channels of ``seen``, ...)

    Raises:
        ValueError: The encoder does not see all that is meant.
    """
    if not set(meant) <= set(seen):
        raise ValueError(f'{path}: its patch encoder sees {tuple(meant)}, that of the tokenizer {tuple(seen)}; set '
                         'point_attributes of the tokenizer to include what it sees')
    columns = dict(zip(meant, weight.split([num_channels((name,)) for name in meant], dim=1)))
    return torch.cat([columns[name] if name in columns
                      else weight.new_zeros(weight.shape[0], num_channels((name,)), *weight.shape[2:])
                      for name in seen], dim=1)


def _contract(family: Family, tensors: Mapping[str, Tensor], architecture: Architecture, path: Path,
              metadata: Mapping[str, str], name: str | None) -> Contract:
    """The contract of a file: its own, that of its name, or that of the published model most like it."""
    if 'contract' in metadata:
        return Contract.from_dict(json.loads(metadata['contract']))
    catalogue = load_catalogue('checkpoints')
    if name is not None:
        return Contract.from_dict(catalogue[name]['contract'])
    columns = tensors[PATCH_ENCODER + _first_layer(architecture) + '.weight'].shape[1]
    attributes = family.attributes.get(columns, ())

    def likeness(entry: dict) -> tuple:
        tokenizer, backbone, contract = (*(entry['architecture'][part] for part in ('tokenizer', 'backbone')),
                                         entry['contract'])
        patch_encoder = tokenizer.get('patch_encoder', {}).get('type', 'PatchEncoder')
        return (entry['file'] is not None and Path(entry['file']).name == path.name,
                tuple(contract.get('point_attributes', ('xyz',))) == attributes,
                patch_encoder == architecture.tokenizer['patch_encoder']['type'],
                contract.get('embed_dim') == architecture.embed_dim,
                sum(architecture.backbone.get(key) == value for key, value in backbone.items()))

    entries = [entry for entry in catalogue.values() if entry['family'] == family.name]
    contract = Contract.from_dict(max(entries, key=likeness)['contract'])
    if contract.embed_dim != architecture.embed_dim:  # of a teacher that is not known
        contract = replace(contract, teacher=None, embed_dim=architecture.embed_dim)
    return replace(contract, point_attributes=attributes or contract.point_attributes)


def _hold_to_entry(found: ForeignCheckpoint, name: str, entry: dict) -> None:
    """Refuse a file that is not the one the catalogue names, with both sides."""
    contract = Contract.from_dict(entry['contract'])
    sides = [('sees', found.attributes, contract.point_attributes)]
    if found.architecture.embed_dim is not None:
        sides.append(('embeds into a width of', found.architecture.embed_dim, contract.embed_dim))
    sides += [(f'{key} of its backbone', found.architecture.backbone[key], value)
              for key, value in entry['architecture']['backbone'].items() if key in found.architecture.backbone]
    wrong = [f'{what}: {here} in the file, {there} published' for what, here, there in sides if here != there]
    if wrong:
        raise ValueError(f'{found.path}: is not {name}; {"; ".join(wrong)}. {entry["page"]} has the right one')
