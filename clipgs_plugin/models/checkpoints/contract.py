"""Input contract of a published model, which travels with its weights."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from torch import nn

from clipgs_plugin.models.tokenizers.gs_tokenizer import GSTokenizer
from clipgs_plugin.registry.catalogue import load_catalogue

AXES = {(0, 1, 2): 'y up', (0, 2, 1): 'z up (y and z swapped, a reflection)'}


@dataclass(frozen=True)
class Contract:
    """Input that a point-cloud model was trained with, and the space it embeds into.

    Axes are relative to the frame of this library: right-handed, y up.

    Attributes:
        num_points: Number of points of an object.
        num_groups: G, number of patches of an object.
        group_size: K, number of points of a patch.
        radius: Radius of a patch, which is the first K points within it; None takes the K nearest points.
        start: First centre of farthest point sampling: an index or ``'random'``.
        rule: Rule of farthest point sampling, ``'exact'`` or ``'pointnet2'``.
        point_attributes: Input attributes of a point, in order.
        point_axes: Order of the input axes; ``(0, 2, 1)`` swaps y and z.
        normalisation: ``'unit_sphere'`` centres on the mean and scales the greatest radius to 1; ``'none'`` keeps the
            data unchanged.
        color_range: Minimum and maximum of a colour; None without colour.
        missing_color: Grey value that replaces missing colours; None without colour.
        teacher: Name of the CLIP model whose space it embeds into, if possible as in the catalogue of teachers; None
            if the model was not aligned.
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
        """Make a contract from plain data, as read from YAML or JSON.

        Raises:
            ValueError: A name is unknown, or a required name is missing.
        """
        known = {field.name for field in fields(cls)}
        missing = {'num_points', 'num_groups', 'group_size'} - values.keys()
        if values.keys() - known or missing:
            raise ValueError(f'contract has unknown names {sorted(values.keys() - known)} and lacks {sorted(missing)}; '
                             f'expected names of {sorted(known)}')
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})

    def to_dict(self) -> dict:
        """Return plain data for YAML or JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def tokenizer_options(self) -> dict:
        """Return the options of a GSTokenizer that forms patches by this contract.

        A model trained with random starts is started at 0, which is as good as any other index and deterministic.
        """
        start = 0 if self.start == 'random' else self.start
        return dict(num_groups=self.num_groups, group_size=self.group_size, radius=self.radius, start=start,
                    rule=self.rule, point_attributes=self.point_attributes, point_axes=self.point_axes)

    def disagreements(self, encoder: nn.Module) -> list[str]:
        """List the differences between a GSEncoder and this contract, with both sides.

        A :class:`PointCloudModel` has none.
        """
        tokenizer, lines = encoder.tokenizer, []
        if not isinstance(tokenizer, GSTokenizer):
            return lines
        for option, trained in self.tokenizer_options().items():
            if option != 'point_attributes' and getattr(tokenizer, option) != trained:  # widening has its own note
                lines.append(f'was trained with {option}={trained!r}, but the tokenizer has '
                             f'{option}={getattr(tokenizer, option)!r}')
        space = self.other_space(encoder)
        return [*lines, space] if space else lines

    def other_space(self, encoder: nn.Module) -> str:
        """Describe the difference between the spaces of an encoder and of this contract; empty if they agree.

        Spaces agree if their widths are equal and their teachers are equal or not both known.
        """
        embed_dim, teacher = getattr(encoder, 'embed_dim', None), getattr(encoder, 'teacher', None)
        if self.embed_dim not in (None, embed_dim):
            return (f'embeds into {self.teacher or "a space"} of width {self.embed_dim}, but the encoder has '
                    f'embed_dim={embed_dim}')
        if None not in (self.teacher, teacher) and not same_teacher(self.teacher, teacher):
            return f'embeds into {self.teacher}, but the encoder has teacher={teacher!r}'
        return ''

    def lines(self) -> list[str]:
        """Describe the contract in words."""
        patches = f'{self.num_groups} patches of ' + (
            f'the {self.group_size} nearest points' if self.radius is None
            else f'the first {self.group_size} points within {self.radius:g}')
        color = '' if self.color_range is None else (
            f', colours in [{self.color_range[0]:g}, {self.color_range[1]:g}]'
            + ('' if self.missing_color is None else f', missing colours are {self.missing_color:g} grey'))
        axes = AXES.get(self.point_axes, f'axes {self.point_axes}')
        scale = 'in the unit sphere about the mean' if self.normalisation == 'unit_sphere' else 'not normalised'
        return [
            f'{self.num_points:,} points, {axes}, {scale}',
            f'{patches}, first centre {self.start}, sampling rule {self.rule}',
            f'point attributes {", ".join(self.point_attributes)}{color}',
            f'embeds into {self.teacher} (width {self.embed_dim})' if self.teacher
            else 'not aligned with a CLIP model',
        ]


def same_teacher(first: str, second: str) -> bool:
    """Compare two names of teachers, in any case: of the catalogue, or of an architecture and a tag."""
    return second.lower() in _names_of_teacher(first) or first.lower() in _names_of_teacher(second)


def _names_of_teacher(name: str) -> tuple[str, ...]:
    """Return the names of a teacher in lower case: its name in the catalogue, and architecture and tag if known."""
    entry = load_catalogue('teachers').get(name.lower(), {})
    return name.lower(), f'{entry.get("model")}-{entry.get("tag")}'.lower()
