"""Splats that are there already."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipgs_plugin import io
from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.sources.base import checked_axis
from clipgs_plugin.generation.sources.listing import find_files, list_files
from clipgs_plugin.io.sog import META
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import GaussianCloud


@TASK_UTILS.register_module()
class SplatSource:
    """Splat files of every format that :func:`clipgs_plugin.read_gaussians` reads, and folders of a SOG.

    Args:
        up: The axis that points up in the files, which they do not tell.
        suffixes: Endings of the files to list.
        split: Of the dataset, where no file or folder is named after one.
        clean: Drop Gaussians with NaN, infinite values or a zero quaternion, in place of refusing the file.
    """

    def __init__(self, up: str = 'y', suffixes: Sequence[str] = io.SUFFIXES, split: str = 'train',
                 clean: bool = False) -> None:
        self.up = checked_axis(up)
        self.suffixes = tuple(suffixes)
        self.split = split
        self.clean = clean

    def list(self, root: Path) -> list[Listed]:
        """The objects below a folder, or of a file; a SOG that is a folder is listed as its folder."""
        root = Path(root)
        if META in self.suffixes and (root / META).is_file():
            return list_files(root, [root], self.split)
        paths = [path.parent if path.name.lower() == META else path for path in find_files(root, self.suffixes)
                 if path.name.lower() == META or not path.name.lower().endswith(META)]
        return list_files(root, paths, self.split)

    def load(self, listed: Listed) -> GaussianCloud:
        """The cloud of an object, float32 in the INRIA convention, in the frame of its file.

        Raises:
            FileNotFoundError: No such file.
            ValueError: No splat, a damaged one, or one with invalid Gaussians.
        """
        return io.read_gaussians(listed.path, clean=self.clean)
