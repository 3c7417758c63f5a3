"""The parts of the package's metadata that need the address of the repository; setup.cfg has all others."""
import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent


def repository() -> str | None:
    """Return the address in CITATION.cff (``repository-code``), the only place that has it, or None."""
    citation = (ROOT / 'CITATION.cff').read_text(encoding='utf-8')
    found = re.search(r'^repository-code: *["\']?([^"\'\s]+)', citation, re.MULTILINE)
    return found[1].rstrip('/') if found else None


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
