"""Definition of a checkpoint family, and helpers that read sizes from tensor shapes."""
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from clipgs_plugin.models.tokenizers.patch_encoder import PatchEncoder

PATCH_ENCODER = 'tokenizer.patch_encoder.'
PROJECTION = 'projection.'
HEAD_WIDTH = 64

# Conversions between the stored form of a tensor and the form an encoder uses: (load, save).
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    'same': (lambda x: x, lambda x: x),
    'transposed': (lambda x: x.T.contiguous(), lambda x: x.T.contiguous()),  # a parameter P of x @ P
    'token': (lambda x: x.reshape(1, 1, -1), lambda x: x.reshape(-1)),
}


class Rule(NamedTuple):
    """Renaming of the tensors whose name in the file starts with ``source``."""

    source: str
    target: str         # replaces ``source`` in the names of an encoder
    form: str = 'same'  # one of FORMS


class Architecture(NamedTuple):
    """Sizes of a model, as options of the registered parts."""

    tokenizer: dict          # options in addition to those of the contract
    backbone: dict
    projection: dict | None  # None if the file has no projection

    @property
    def embed_dim(self) -> int | None:
        return self.projection and self.projection['out_features']


@dataclass(frozen=True)
class Family:
    """Naming and storage of the checkpoints of one kind of point-cloud model.

    Args:
        name: Name of the family, as in ``PointCloudPretrained(family=...)``.
        backbone: Registered type of the backbone.
        prefixes: Possible prefixes of the point-cloud model's names. The first match is used.
        signature: Names, without the prefix, that every file of the family contains.
        architecture: Function from the tensors, by their names in an encoder, to the architecture of the model.
        rules: Renaming rules for names without the prefix.
        outside: Renaming rules for whole names outside the prefix.
        absent: Substrings that no name of the family contains. They mark other models with the same layout.
        attributes: Input attributes of a point, by the number of input channels of the first layer.
        first_layer: Name of the first layer within the patch encoder.
        same_layers: Other registered backbones with exactly the same layers.
        unused: Reasons for tensors that are never loaded, by the beginning of their whole name.
        projection_bias: True if the projection has a bias; None if the family, or some of its files, have no
            projection.
        unprojected: Prefixes whose files have no projection.
        wrapper: Key under which the family's training code saves the state dict.
    """

    name: str
    backbone: str
    prefixes: tuple[str, ...]
    signature: tuple[str, ...]
    architecture: Callable[[Mapping[str, Tensor]], Architecture]
    rules: tuple[Rule, ...]
    outside: tuple[Rule, ...] = ()
    absent: tuple[str, ...] = ()
    attributes: Mapping[int, tuple[str, ...]] = field(
        default_factory=lambda: {3: ('xyz',), 6: ('xyz', 'rgb')})
    first_layer: str = PatchEncoder.first_layer
    same_layers: tuple[str, ...] = ()
    unused: Mapping[str, str] = field(default_factory=dict)
    projection_bias: bool | None = None
    unprojected: tuple[str, ...] = ()
    wrapper: str = 'base_model'

    @property
    def first_weight(self) -> str:
        """Name in an encoder of the weight whose columns are the input attributes."""
        return f'{PATCH_ENCODER}{self.first_layer}.weight'

    @property
    def zeros(self) -> tuple[str, ...]:
        """Names of an encoder's tensors that the family does not store because they are zero."""
        return ('projection.bias',) if self.projection_bias is False else ()

    def find_prefix(self, names: Collection[str]) -> str | None:
        """Return the prefix of the point-cloud model in a file, or None if the file is of another family."""
        for prefix in self.prefixes:
            inner = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
            if inner.issuperset(self.signature) and not any(mark in name for mark in self.absent for name in inner):
                return prefix
        return None

    def whole_rules(self, prefix: str) -> list[Rule]:
        """Return the renaming rules for whole names in a file with this prefix."""
        return [*(rule._replace(source=prefix + rule.source) for rule in self.rules), *self.outside]

    def source_of(self, name: str, prefix: str) -> str:
        """Return the name in a file with this prefix of the tensor ``name`` of an encoder."""
        rule = next((rule for rule in self.whole_rules(prefix) if name.startswith(rule.target)), None)
        return name if rule is None else rule.source + name.removeprefix(rule.target)

    def translate(self, state: Mapping[str, Tensor],
                  prefix: str) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
        """Rename the tensors of a file with this prefix to their names in an encoder.

        Returns:
            Tensors by their names in an encoder, names in the file by names in an encoder, and the reasons why the
            other tensors are not used, by their names in the file.
        """
        rules = self.whole_rules(prefix)
        tensors, sources, unused = {}, {}, {}
        for key, value in state.items():
            reason = next((why for start, why in self.unused.items() if key.startswith((start, prefix + start))), None)
            rule = None if reason else next((rule for rule in rules if key.startswith(rule.source)), None)
            if rule is None:
                unused[key] = reason or f'not a known name of {self.name}'
            else:
                name = rule.target + key.removeprefix(rule.source)
                tensors[name], sources[name] = FORMS[rule.form][0](value), key
        return tensors, sources, unused

    def export(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename an encoder's tensors to the names of the family's files, with its first prefix.

        Tensors without a name in the family are left out.

        Raises:
            ValueError: A tensor that the family does not store is not zero.
        """
        rules = self.whole_rules(self.prefixes[0])
        exported = {}
        for name, value in state.items():
            rule = next((rule for rule in rules if name.startswith(rule.target)), None)
            if name in self.zeros:
                if value.any():
                    raise ValueError(f'{name} is not zero, but {self.name} does not store it; leave out its part')
            elif rule is not None:
                exported[rule.source + name.removeprefix(rule.target)] = FORMS[rule.form][1](value)
        return exported


class MissingTensorError(ValueError):
    """Error for a file without a tensor that determines the size of its model.

    Attributes:
        name: Name of the tensor in an encoder.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f'lacks {name}, which determines the size of the model')
        self.name = name


def shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the shape of a tensor.

    Raises:
        MissingTensorError: The tensor is missing.
    """
    if name not in tensors:
        raise MissingTensorError(name)
    return tuple(tensors[name].shape)


def count_blocks(names: Iterable[str], start: str) -> int:
    """Count the blocks whose tensor names begin with ``start`` and an index."""
    pattern = re.compile(re.escape(start) + r'(\d+)\.')
    return 1 + max((int(match[1]) for name in names if (match := pattern.match(name))), default=-1)


def mini_pointnet(tensors: Mapping[str, Tensor]) -> dict:
    """Return the options of a tokenizer with Point-BERT's patch encoder."""
    first = shape(tensors, PATCH_ENCODER + 'first_conv.0.weight')
    middle = shape(tensors, PATCH_ENCODER + 'first_conv.3.weight')
    second = shape(tensors, PATCH_ENCODER + 'second_conv.0.weight')
    return dict(channels=shape(tensors, PATCH_ENCODER + 'second_conv.3.weight')[0],
                patch_encoder=dict(type='PatchEncoder', widths=(first[0], middle[0], second[0])))


def linear_projection(tensors: Mapping[str, Tensor], bias: bool) -> dict | None:
    """Return the options of a linear projection, or None if the file has none."""
    if not {'projection.weight', 'projection.bias'} & tensors.keys():
        return None
    return dict(out_features=shape(tensors, 'projection.weight')[0], bias=bias)


def size_of_width(sizes: Mapping[str, tuple], width: int, model: str) -> str:
    """Return the name of the size with this width, the first value of its entry.

    Raises:
        ValueError: No size of the model has this width.
    """
    for size, (dim, *_) in sizes.items():
        if dim == width:
            return size
    raise ValueError(f'has width {width}; the sizes of {model} are '
                     f'{", ".join(f"{size} ({dim})" for size, (dim, *_) in sizes.items())}')


def heads_of_64(width: int) -> int:
    """Return the number of attention heads if each is 64 wide, as in nearly all families."""
    return max(1, width // HEAD_WIDTH)
