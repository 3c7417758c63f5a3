"""Initialisation without a line per parameter on the screen."""
from __future__ import annotations

from logging import FileHandler

from mmengine.logging import MMLogger


class QuietInit:
    """Mixin before mmengine's ``BaseModule`` whose ``init_weights`` lists the parameters in log files alone.

    mmengine prints two lines for each parameter if the current logger has no file.
    """

    def _dump_init_info(self) -> None:
        if any(isinstance(handler, FileHandler) for handler in MMLogger.get_current_instance().handlers):
            super()._dump_init_info()
