"""The parts of the package's metadata that need the address of the repository; setup.cfg has all others."""
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def repository() -> str | None:
    """Return the address in setup.cfg (``[repository] url``), or None while it is empty."""
    settings = ConfigParser()
    settings.read(ROOT / 'setup.cfg', encoding='utf-8')
    return settings['repository']['url'].rstrip('/') or None


def long_description(address: str | None) -> str:
    """Return the README for pages elsewhere: with absolute links and pictures, or without those of the repository.

    Args:
        address: Address of the repository, or None.
    """
    def absolute(match: re.Match) -> str:
        picture, text, target = match.groups()
        if re.match(r'\w+:', target):
            return match[0]
        if address is None:
            return '' if picture else text
        return f'{picture}[{text}]({address}/{"raw" if picture else "blob"}/main/{target})'
    return re.sub(r'(!?)\[([^]]*)\]\(([^)]+)\)', absolute, (ROOT / 'README.md').read_text(encoding='utf-8'))


address = repository()
urls = {'Paper': 'https://arxiv.org/abs/2412.19142'}
if address:
    urls |= {'Source': address, 'Changelog': f'{address}/blob/main/CHANGELOG.md', 'Issues': f'{address}/issues'}
setup(long_description=long_description(address), project_urls=urls)
