"""From a published file to the tensors of an encoder, with a report of what became of each."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from clipgs_plugin.models.checkpoints.contract import Contract
from clipgs_plugin.models.checkpoints.family import PATCH_ENCODER, Architecture, Family
from clipgs_plugin.models.checkpoints.gaussian_mae import GAUSSIAN_MAE
from clipgs_plugin.models.checkpoints.openshape import OPENSHAPE
from clipgs_plugin.models.checkpoints.point_bert import POINT_BERT
from clipgs_plugin.models.checkpoints.point_mae import POINT_MAE
from clipgs_plugin.models.checkpoints.reading import read_checkpoint, read_metadata
from clipgs_plugin.models.checkpoints.recon import RECON
from clipgs_plugin.models.checkpoints.recon_plus_plus import RECON_PLUS_PLUS
from clipgs_plugin.models.checkpoints.report import LoadReport, some
from clipgs_plugin.models.checkpoints.ulip import ULIP
from clipgs_plugin.models.checkpoints.uni3d import UNI3D
from clipgs_plugin.models.parts import PUBLISHED_PARTS, part_of
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.structures.attributes import num_channels

# In the order in which they are tried: the more particular names first.
FAMILIES = {family.name: family for family in (
    UNI3D, OPENSHAPE, RECON_PLUS_PLUS, ULIP, POINT_BERT, RECON, POINT_MAE, GAUSSIAN_MAE)}
DEFAULT_PARTS = tuple(part for part in PUBLISHED_PARTS if part != 'projection')
CHECKPOINT_FOLDER = 'CLIPGS_CHECKPOINTS'
FINETUNED = 'cls_head_finetune.'


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
                         f'{kind.name} was expected; give that, or say finetuned=True if you mean this one')
    tensors, sources, unused = kind.translate(state)
    try:
        architecture = kind.architecture(tensors)
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
        parts: Which parts to take, of ``PUBLISHED_PARTS``.
        widen: Whether a first convolution may be widened.

    Returns:
        What was loaded, and what of the file was not used and why.

    Raises:
        TypeError: The module is not an encoder of tokenizer and backbone.
        ValueError: The parts or the family are unknown, or the file does not fit: something that the encoder needs
            is missing, is of another shape, or the file has blocks that the encoder has not. Nothing is loaded then.
    """
    if set(parts) - set(PUBLISHED_PARTS):
        raise ValueError(f'parts={tuple(parts)}: expected some of {PUBLISHED_PARTS}')
    if getattr(encoder, 'tokenizer', None) is None or not hasattr(encoder, 'backbone'):
        raise TypeError(f'{type(encoder).__name__} has no tokenizer and backbone; PointCloudPretrained belongs into '
                        'the init_cfg of the GSEncoder, as its weights are spread over both')
    if not isinstance(checkpoint, ForeignCheckpoint):
        checkpoint = open_point_cloud_checkpoint(checkpoint, family, name, finetuned)
    found, own, notes = dict(checkpoint.tensors), encoder.state_dict(), []
    kind, backbone = checkpoint.family, encoder.backbone
    if type(backbone).__name__ != kind.backbone and 'blocks' in parts and not _is_kin(backbone, kind):
        raise ValueError(f'{checkpoint.path}: weights of {kind.name} fit a {kind.backbone} of the same size, this '
                         f'encoder has a {type(backbone).__name__}; set backbone=dict(type={kind.backbone!r}, ...)')
    if 'patch_encoder' in parts:
        notes += _fit_first_conv(found, own, encoder, checkpoint, widen)
    for key in kind.zeros:
        if key in own and key not in found:
            found[key] = torch.zeros_like(own[key])
    wanted = {key for key in own if part_of(key, backbone) in parts}
    placed = found.keys() & wanted
    unused = dict(checkpoint.unused)
    for key, source in checkpoint.sources.items():
        if key in own and key not in wanted:
            unused[source] = f'of the part {part_of(key, backbone)!r}, which was not asked for'
        elif key.startswith('projection.') and 'projection' not in parts:
            unused[source] = "of the part 'projection', which was not asked for"
    beside = {key for key in checkpoint.sources if checkpoint.sources[key] in unused}
    report = LoadReport(
        path=checkpoint.path, family=kind.name, unused=unused, notes=notes,
        loaded=[key for key in own if key in placed],
        # Batch norms count batches only for a kind of averaging nobody uses; old files lack the counter.
        missing=[key for key in own if key in wanted and key not in found and not key.endswith('num_batches_tracked')],
        unplaced=[] if set(parts) == {'patch_encoder'} else
                 [key for key in found if key not in own and key not in beside],
        mismatched=[f'{key} {tuple(found[key].shape)} for {tuple(own[key].shape)}' for key in own
                    if key in placed and found[key].shape != own[key].shape])
    if not report.complete:
        raise ValueError(f'{report}\nNothing was loaded. Weights of {kind.name} fit a {kind.backbone} of the same size '
                         f'behind its patch encoder; this one is {checkpoint.architecture.backbone} behind '
                         f'{checkpoint.architecture.tokenizer}, the encoder has a {type(backbone).__name__}')
    with torch.no_grad():
        for key in report.loaded:
            own[key].copy_(found[key])
    return report


def _is_kin(backbone: nn.Module, family: Family) -> bool:
    """Whether the backbone is of the same layers under another name, as those of Point-BERT and ULIP are."""
    from clipgs_plugin.models.backbones.point_bert import PointBERT, PointMAE
    kin = {'PointBERT': PointBERT, 'ULIP': PointBERT, 'PointMAE': PointMAE, 'GaussianMAE': PointMAE}
    return family.backbone in kin and isinstance(backbone, kin[family.backbone])


def _find(checkpoint: str | Path, catalogue: Mapping[str, dict]) -> Path:
    """The file of a path or of a name in the catalogue."""
    path = Path(checkpoint).expanduser()
    entry = catalogue.get(str(checkpoint))
    if path.is_file() or entry is None:
        return path
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
        ValueError: It has those of none.
    """
    fits = [family for family in FAMILIES.values() if family.prefix(state) is not None]
    # Point-MAE and Gaussian-MAE differ in what they see, not in their names.
    fits = [family for family in fits if _sees_known(family, state)] or fits
    if not fits:
        raise ValueError(f'{path}: its names are of none of the families {sorted(FAMILIES)}; it begins '
                         f'{some(list(state))}')
    return fits[0]


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
