"""Settings of configs on the command line."""
from __future__ import annotations

import argparse


def settings_action() -> type[argparse.Action]:
    """Return mmengine's action for ``KEY=VALUE``, for which a value that it cannot read is wrong use."""
    from mmengine.config import DictAction

    class Settings(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            for value in values:
                try:
                    super().__call__(parser, argparse.Namespace(), [value], option_string)
                except (ValueError, AssertionError, RecursionError):
                    parser.error(f'{option_string} {value}: expected KEY=VALUE with a number, a word, or a list of '
                                 'them such as [1,2]; a setting within a dict has a dotted key, and a list of dicts '
                                 'needs a config file')
            super().__call__(parser, namespace, values, option_string)

    return Settings
