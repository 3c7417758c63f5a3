"""How a family of point-cloud models names its weights."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

PARTS = ('patch_encoder', 'position', 'blocks', 'norm', 'projection')


class Rule(NamedTuple):
    """Names that begin with ``source`` in the file begin with ``target`` in a GSEncoder."""

    source: str
    target: str
    part: str  # one of PARTS


@dataclass(frozen=True)
class Family:
    """The names of a family's checkpoints.

    Args:
        name: As ``PointCloudPretrained(family=...)`` takes it.
        backbone: Registered type of the backbone that the weights fit.
        prefixes: What may stand before all names of the point-cloud model; the first that fits is taken.
        signature: Name, after the prefix, by which the family is told from the others.
        rules: Renaming, after the prefix.
    """

    name: str
    backbone: str
    prefixes: tuple[str, ...]
    signature: str
    rules: tuple[Rule, ...]

    def prefix(self, keys: Iterable[str]) -> str | None:
        """The prefix of the point-cloud model among the names of a file; None where it is of another family."""
        keys = set(keys)
        return next((prefix for prefix in self.prefixes if prefix + self.signature in keys), None)

    def translate(self, state: Mapping[str, Tensor], parts: Iterable[str]) -> tuple[dict[str, Tensor], list[str]]:
        """The tensors of some parts by the names of a GSEncoder, and the names in the file of all others."""
        prefix = self.prefix(state)
        rules = self.selected(parts)
        translated, unused = {}, []
        for key, value in state.items():
            rule = next((rule for rule in rules if key.startswith(prefix + rule.source)), None)
            if rule is None:
                unused.append(key)
            else:
                translated[rule.target + key.removeprefix(prefix + rule.source)] = value
        return translated, unused

    def needed(self, keys: Iterable[str], parts: Iterable[str]) -> list[str]:
        """Those names of a GSEncoder that the parts of a file must fill."""
        targets = tuple(rule.target for rule in self.selected(parts))
        # Batch norms count batches only for a kind of averaging nobody uses; old files lack the counter.
        return [key for key in keys if key.startswith(targets) and not key.endswith('num_batches_tracked')]

    def selected(self, parts: Iterable[str]) -> list[Rule]:
        return [rule for rule in self.rules if rule.part in parts]
