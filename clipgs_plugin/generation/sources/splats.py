"""Source of existing splats."""
from __future__ import annotations

from pathlib import Path

from clipgs_plugin import io
from clipgs_plugin.generation.objects import Listed
from clipgs_plugin.generation.sources.base import check_axis
from clipgs_plugin.generation.sources.listing import find_files, list_files
from clipgs_plugin.io.sog import META
from clipgs_plugin.registry import TASK_UTILS
from clipgs_plugin.structures import GaussianCloud


@TASK_UTILS.register_module()
class SplatSource:
    """Splat files of every format that :func:`clipgs_plugin.read_gaussians` reads, and folders of a SOG.

    Args:
        up: Up axis of the files, which do not store it.
        clean: Drop Gaussians with NaN, infinite values or a zero quaternion instead of refusing the file.
    """

    suffixes = io.SUFFIXES

    def __init__(self, up: str = 'y', clean: bool = False) -> None:
        self.up = check_axis(up)
        self.clean = clean

    def list(self, root: Path) -> list[Listed]:
        """List the objects below a folder, or of one file; an unpacked SOG is listed as its folder."""
        root = Path(root)
        if (root / META).is_file():
            return list_files(root, [root])
        files = find_files(root, self.suffixes)
        return list_files(root, [path.parent if path.name.lower() == META else path for path in files
                                 if path.name.lower() == META or not path.name.lower().endswith(META)])

    def load(self, listed: Listed) -> GaussianCloud:
        """Load the Gaussians of an object, float32 in the INRIA convention, in the frame of its file.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is no splat, is damaged, or holds invalid Gaussians.
        """
        return io.read_gaussians(listed.path, clean=self.clean)
