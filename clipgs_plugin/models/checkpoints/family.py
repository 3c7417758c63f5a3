"""How a family of point-cloud models names and stores its weights."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

PATCH_ENCODER = 'tokenizer.patch_encoder.'
HEAD_WIDTH = 64

# How a tensor is stored beside how it is used: the way in and the way back.
FORMS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    'same': (lambda x: x, lambda x: x),
    'transposed': (lambda x: x.T.contiguous(), lambda x: x.T.contiguous()),  # a parameter P of x @ P
    'token': (lambda x: x.reshape(1, 1, -1), lambda x: x.reshape(-1)),
}


class Rule(NamedTuple):
    """Names that begin with ``source`` in the file begin with ``target`` in an encoder."""

    source: str
    target: str
    form: str = 'same'  # one of FORMS


class Architecture(NamedTuple):
    """What the names and shapes of a file say about its model, as options of the registered parts."""

    tokenizer: dict          # beside what the contract says
    backbone: dict
    projection: dict | None  # options of the projection, None where the file has none

    @property
    def embed_dim(self) -> int | None:
        return self.projection and self.projection['out_features']


@dataclass(frozen=True)
class Family:
    """The checkpoints of one kind of point-cloud model.

    Args:
        name: As ``PointCloudPretrained(family=...)`` takes it.
        backbone: Registered type of the backbone that the weights fit.
        prefixes: What may stand before all names of the point-cloud model; the first that fits is taken.
        signature: Names, after the prefix, that every file of the family has.
        architecture: From the tensors by the names of an encoder to the sizes of the model.
        rules: Renaming, after the prefix.
        outside: Renaming of whole names, for what lies outside of the prefix.
        absent: Parts of names, after the prefix, that no file of the family has: marks of others built on it.
        attributes: What the columns of the first convolution mean, by their number.
        unused: Beginnings of whole names that are never used, and why.
        projection_bias: Whether the projection has a bias; None where the family has no projection.
        unprojected: Those of the prefixes whose files never had a projection all the same.
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
    unused: Mapping[str, str] = field(default_factory=dict)
    projection_bias: bool | None = None
    unprojected: tuple[str, ...] = ()

    @property
    def zeros(self) -> tuple[str, ...]:
        """Names of an encoder that the family does without, so that zeros stand for them."""
        return () if self.projection_bias is not False else ('projection.bias',)

    def source_of(self, name: str, prefix: str) -> str:
        """How a file with this prefix calls what an encoder calls ``name``."""
        rule = next((rule for rule in self.whole_rules(prefix) if name.startswith(rule.target)), None)
        return name if rule is None else rule.source + name.removeprefix(rule.target)

    def prefix(self, keys: Iterable[str]) -> str | None:
        """The prefix of the point-cloud model among the names of a file; None where it is of another family."""
        keys = set(keys)
        for prefix in self.prefixes:
            inner = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
            if set(self.signature) <= set(inner) and not any(mark in key for mark in self.absent for key in inner):
                return prefix
        return None

    def whole_rules(self, prefix: str) -> list[Rule]:
        """The rules on whole names, for a file with this prefix."""
        return [*(rule._replace(source=prefix + rule.source) for rule in self.rules), *self.outside]

    def translate(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], dict[str, str]]:
        """The tensors by the names of an encoder.

        Returns:
            Tensors by our names, the names in the file by ours, and of all other names in the file why they are not
            used.
        """
        prefix = self.prefix(state)
        rules = self.whole_rules(prefix)
        tensors, sources, unused = {}, {}, {}
        for key, value in state.items():
            reason = next((why for start, why in self.unused.items() if key.startswith((start, prefix + start))), None)
            rule = None if reason else next((rule for rule in rules if key.startswith(rule.source)), None)
            if rule is None:
                unused[key] = reason or f'of no name that {self.name} is known to have'
            else:
                name = rule.target + key.removeprefix(rule.source)
                tensors[name], sources[name] = FORMS[rule.form][0](value), key
        return tensors, sources, unused

    def export(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by the names of an encoder as the family saves them, with its first prefix; others are left out.

        Raises:
            ValueError: The family has no place for a tensor that is not zero.
        """
        rules = self.whole_rules(self.prefixes[0])
        exported = {}
        for name, value in state.items():
            rule = next((rule for rule in rules if name.startswith(rule.target)), None)
            if name in self.zeros:
                if value.any():
                    raise ValueError(f'{name} is not zero, and {self.name} has none; leave its part out')
            elif rule is not None:
                exported[rule.source + name.removeprefix(rule.target)] = FORMS[rule.form][1](value)
        return exported


class MissingTensorError(ValueError):
    """A file lacks a tensor without which the size of its model cannot be told.

    Attributes:
        name: As an encoder calls it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f'lacks {name}, without which the size of its model cannot be told')
        self.name = name


def shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """The shape of a tensor that tells a size.

    Raises:
        MissingTensorError: It is not there.
    """
    if name not in tensors:
        raise MissingTensorError(name)
    return tuple(tensors[name].shape)


def count_blocks(tensors: Iterable[str], start: str) -> int:
    """Number of blocks whose names begin with ``start`` and their index."""
    pattern = re.compile(re.escape(start) + r'(\d+)\.')
    return 1 + max((int(match[1]) for name in tensors if (match := pattern.match(name))), default=-1)


def mini_pointnet(tensors: Mapping[str, Tensor]) -> dict:
    """Options of a tokenizer with the patch encoder of Point-BERT."""
    first = shape(tensors, PATCH_ENCODER + 'first_conv.0.weight')
    middle = shape(tensors, PATCH_ENCODER + 'first_conv.3.weight')
    second = shape(tensors, PATCH_ENCODER + 'second_conv.0.weight')
    return dict(channels=shape(tensors, PATCH_ENCODER + 'second_conv.3.weight')[0],
                patch_encoder=dict(type='PatchEncoder', widths=(first[0], middle[0], second[0])))


def linear_projection(tensors: Mapping[str, Tensor], bias: bool) -> dict | None:
    """Options of a projection that is one matrix, None where the file has nothing of it."""
    if not {'projection.weight', 'projection.bias'} & tensors.keys():
        return None
    return dict(out_features=shape(tensors, 'projection.weight')[0], bias=bias)


def heads_of_64(width: int) -> int:
    """Attention heads of a transformer whose heads are 64 wide, as nearly all of the families' are."""
    return max(1, width // HEAD_WIDTH)
