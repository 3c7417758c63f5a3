"""A scene with its objects, their embeddings and their scores for texts."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from clipgs_plugin.io import format_of_name, write_gaussians
from clipgs_plugin.scenes.objects import SceneObjects
from clipgs_plugin.scenes.scene import Scene
from clipgs_plugin.scenes.scores import TextScores
from clipgs_plugin.scenes.table import ObjectRow, describe_objects
from clipgs_plugin.search import IndexCard

if TYPE_CHECKING:
    from clipgs_plugin.apis import CLIPGSInferencer


@dataclass(frozen=True, eq=False)
class LabelledScene:
    """Objects of a scene, embedded and compared with texts.

    :func:`~clipgs_plugin.scenes.write_scene_folder` writes all of it.

    Attributes:
        scene: The scene.
        objects: Its objects.
        embeddings: Unit vectors of the objects, (M, E).
        texts: Scores of the objects for texts, or None.
        way: Description of how the objects were found.
        up: Up axis of the scene.
        turns: Number of turns whose embeddings were averaged.
        balanced: True if colours were embedded without the light of the scene.
        card: Origin of the embeddings.
    """

    scene: Scene
    objects: SceneObjects
    embeddings: Tensor
    texts: TextScores | None
    way: str
    up: str
    turns: int
    balanced: bool
    card: IndexCard

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self.objects)} objects of {self.scene.name} by {self.way})'

    def __len__(self) -> int:
        return len(self.objects)

    @cached_property
    def rows(self) -> tuple[ObjectRow, ...]:
        """Description of each object in the order of ``objects``, with its label and score."""
        digits = max(4, len(str(int(self.objects.ids.max())))) if len(self) else 4
        rows = []
        for i, row in enumerate(describe_objects(self.scene.cloud, self.objects)):
            name, score = self.texts.best(i) if self.texts else ('', None)
            label = name if self.texts and self.texts.kind == 'probability' else ''  # all would have the only text
            rows.append(replace(row, label=label, score=score, path=f'objects/{row.object:0{digits}d}.ply'))
        return tuple(rows)

    def ids_of(self, which: str, clipgs: CLIPGSInferencer) -> list[int]:
        """Return the ids of the objects that a word means.

        Args:
            which: Ids such as ``'3,5'``, a class that objects are labelled with, or a text, which means the object
                that is most similar to it.
            clipgs: Inferencer of the embeddings, for a text.

        Raises:
            ValueError: No object is labelled with this class.
        """
        if re.fullmatch(r'\s*\d{1,18}(\s*,\s*\d{1,18})*\s*', which):
            return [int(word) for word in which.split(',')]
        labelled = [row.object for row in self.rows if row.label and row.label == which.strip()]
        if labelled:
            return labelled
        if self.texts and self.texts.kind == 'probability' and which.strip() in self.texts.names:
            raise ValueError(f'no object is labelled {which.strip()!r}; name ids, or another text')
        cosines = self.embeddings @ clipgs.embed_text(which)[0]
        return [int(self.objects.ids[cosines.argmax()])]

    def write_part(
        self,
        mask: Tensor,  # (N,) bool
        path: str | os.PathLike,
    ) -> None:
        """Write some Gaussians of the scene; a ``.ply`` keeps the further properties of the scene.

        Raises:
            ValueError: The mask has no Gaussians, or the ending is of no format.
        """
        if not mask.any():
            raise ValueError(f'no Gaussians are left for {os.fspath(path)}; name fewer objects')
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = {name: values[mask.numpy()] for name, values in self.scene.columns.items()}
        kept = dict(columns=columns) if columns and format_of_name(path).name == 'ply' else {}
        write_gaussians(self.scene.cloud[mask], path, **kept)
