"""What a published model was trained to see: the contract that travels with its weights."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

AXES = {(0, 1, 2): 'y up', (0, 2, 1): 'z up by exchange of y and z, a reflection'}


@dataclass(frozen=True)
class Contract:
    """The input that a point-cloud model was trained with, and the space it embeds into.

    Convention: axes are told relative to the frame of this library, right-handed with y up.

    Attributes:
        num_points: Points of an object.
        num_groups: G, patches of an object.
        group_size: K, points of a patch.
        radius: Patches are the first K points within this distance of the centre; None: the K nearest.
        start: First centre of farthest point sampling: an index or ``'random'``.
        rule: Of farthest point sampling, ``'exact'`` or ``'pointnet2'``.
        point_attributes: What it sees of a point, in this order.
        point_axes: Order of the axes it sees; ``(0, 2, 1)`` is the exchange of y and z.
        normalisation: ``'unit_sphere'``: centred on the mean, greatest radius 1; ``'none'``: as the data come.
        color_range: Least and greatest value of a colour; None without colour.
        missing_color: Grey that stands for a colour that is not there; None without colour.
        teacher: Name of the CLIP model in whose space it embeds, in the catalogue of teachers where that has it;
            None where it was not aligned.
        embed_dim: Width of that space, or None.
    """

    num_points: int
    num_groups: int
    group_size: int
    radius: float | None = None
    start: int | str = 0
    rule: str = 'pointnet2'
    point_attributes: tuple[str, ...] = ('xyz',)
    point_axes: tuple[int, int, int] = (0, 1, 2)
    normalisation: str = 'unit_sphere'
    color_range: tuple[float, float] | None = None
    missing_color: float | None = None
    teacher: str | None = None
    embed_dim: int | None = None

    @classmethod
    def from_dict(cls, values: Mapping) -> Contract:
        """A contract from plain data, as YAML and JSON give it.

        Raises:
            ValueError: A name is unknown or a required one is missing.
        """
        known = {field.name for field in fields(cls)}
        missing = {'num_points', 'num_groups', 'group_size'} - values.keys()
        if values.keys() - known or missing:
            raise ValueError(f'contract has unknown {sorted(values.keys() - known)} and lacks {sorted(missing)}; its '
                             f'names are {sorted(known)}')
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict:
        """Plain data, for YAML and JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def tokenizer_options(self) -> dict:
        """How a GSTokenizer is to form patches to keep this contract.

        A model that was shown random starts is started at 0, which is as good as any and always the same.
        """
        start = 0 if self.start == 'random' else self.start
        return dict(num_groups=self.num_groups, group_size=self.group_size, radius=self.radius, start=start,
                    rule=self.rule, point_attributes=self.point_attributes, point_axes=self.point_axes)

    def lines(self) -> list[str]:
        """The contract in words."""
        patches = f'{self.num_groups} patches of ' + (
            f'the {self.group_size} nearest' if self.radius is None
            else f'the first {self.group_size} within {self.radius:g}')
        color = '' if self.color_range is None else (
            f', colour in [{self.color_range[0]:g}, {self.color_range[1]:g}]'
            + ('' if self.missing_color is None else f', {self.missing_color:g} grey where there is none'))
        frame = AXES.get(self.point_axes, f'axes {self.point_axes}')
        where = 'in the unit sphere about the mean' if self.normalisation == 'unit_sphere' else 'not normalised'
        return [
            f'{self.num_points:,} points, {frame}, {where}',
            f'{patches}, centres from {self.start} ({self.rule})',
            f'sees {", ".join(self.point_attributes)}{color}',
            f'embeds into {self.teacher} ({self.embed_dim})' if self.teacher else 'not aligned with a CLIP model',
        ]
