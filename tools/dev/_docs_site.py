"""A hook of mkdocs.yml: pages that lie outside docs/, links between them, and the reference.

Every page is written for the view of the repository, where links are paths between files. On the site, the README is
the start page, the READMEs of ``configs/`` and ``clipgs_plugin/weights/`` keep their paths, and other files of the
repository become pages of their source when a page links to them.
"""
from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'(^ *```.*?^ *```.*?$)', re.DOTALL | re.MULTILINE)
LINK = re.compile(r'(\]\()([^)\s#]+)')
LIST_AFTER_TEXT = re.compile(r'^((?![ |>#-])(?!\d+\.).+\n)(?=(?:-|\d+\.) )', re.MULTILINE)
BESIDE_DOCS = ['README.md', 'CHANGELOG.md', 'configs/*/README.md', 'clipgs_plugin/weights/*/README.md']
REFERENCE = """# Reference

Everything here is public: the names that `__all__` of a package lists. These names are also in `clipgs_plugin` itself:

{names}

Shapes are in the descriptions of the arguments: B objects, N Gaussians, G patches of K Gaussians, C channels, E numbers
of the embedding. Lengths are those of the files, or radii of the object once it is [normalised](../conventions.md).
"""
TOP = ['io.read_gaussians', 'io.write_gaussians', 'structures.GaussianCloud', 'structures.GaussianBatch',
       'apis.CLIPGSInferencer', 'apis.get_model', 'apis.get_config', 'apis.list_models',
       'models.checkpoints.load_point_cloud_checkpoint']


def place_of(path: str) -> str:
    """Place on the site of a file of the repository, which is a Markdown file or lies in ``docs/``."""
    return 'index.md' if path == 'README.md' else path.removeprefix('docs/')


def origin_of(place: str) -> str:
    """Path in the repository of a page of the site; the inverse of :func:`place_of`."""
    if place == 'index.md':
        return 'README.md'
    return place if (ROOT / place).is_file() else f'docs/{place}'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``, the reference and linked source files; fit the navigation to them."""
    from mkdocs.structure.files import File
    for pattern in BESIDE_DOCS:
        for path in sorted(ROOT.glob(pattern)):
            place = place_of(path.relative_to(ROOT).as_posix())
            files.append(File.generated(config, place, abs_src_path=str(path)))
    for place in (place for place in pages_of(config.nav) if place.startswith('api/')):
        files.append(File.generated(config, place, content=reference(Path(place).stem)))
    for page in files.documentation_pages():
        for path in linked_sources(page):
            if files.get_file_from_path(f'source/{path}.md') is None:
                files.append(source_page(path, config))
    places = [page.src_uri for page in files.documentation_pages() if not page.src_uri.startswith('source/')]
    config.extra['planned'] = set(pages_of(config.nav)) - set(places)
    config.nav = completed(config.nav, places)
    return files


def pages_of(nav: list | dict | str) -> list[str]:
    """Places of the pages that a navigation lists, in order."""
    if isinstance(nav, str):
        return [nav]
    return [place for item in (nav.values() if isinstance(nav, dict) else nav) for place in pages_of(item)]


def completed(nav: list, places: list[str]) -> list:
    """Drop entries without a page from a navigation, and add the pages that it does not list as its last section."""
    def existing(item):
        if isinstance(item, str):
            return item if item in places else None
        if isinstance(item, list):
            return [kept for entry in item if (kept := existing(entry))]
        return {title: kept for title, entry in item.items() if (kept := existing(entry))}
    others = sorted(set(places) - set(pages_of(nav)))
    return existing(nav) + ([{'More': others}] if others else [])


def reference(package: str) -> str:
    """Markdown of a page of the reference, which mkdocstrings fills from the docstrings."""
    if package == 'index':
        names = (f'- [`{name.rpartition(".")[2]}`][clipgs_plugin.{name}]' for name in TOP)
        return REFERENCE.format(names='\n'.join(names))
    return f'---\ntitle: {package.removeprefix("clipgs_plugin.")}\n---\n\n# `{package}`\n\n::: {package}\n'


def linked_sources(page: File) -> list[str]:
    """Paths of files in the repository that a page links to and that the site does not have as they are."""
    origin = origin_of(page.src_uri)
    if not (ROOT / origin).is_file():
        return []
    paths = (posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
             for _, path in re.findall(LINK, page.content_string) if '://' not in path)
    return [path for path in paths if is_source(path)]


def is_source(path: str) -> bool:
    return not path.endswith('.md') and not path.startswith('docs/') and (ROOT / path).is_file()


def source_page(path: str, config: MkDocsConfig) -> File:
    """A page that shows a file of the repository."""
    from mkdocs.structure.files import File, InclusionLevel
    language = {'.py': 'python', '.yml': 'yaml', '.yaml': 'yaml', '.cff': 'yaml'}.get(Path(path).suffix, 'text')
    text = (ROOT / path).read_text(encoding='utf-8')
    content = f'---\nsearch:\n  exclude: true\n---\n\n# {Path(path).name}\n\n`{path}`\n\n````{language}\n{text}````\n'
    return File.generated(config, f'source/{path}.md', content=content, inclusion=InclusionLevel.NOT_IN_NAV)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to the places on the site, and set lists apart from the text before them for Python-Markdown."""
    origin = origin_of(page.file.src_uri)
    if origin == 'README.md':
        page.meta['hide'] = ['navigation']  # which has one entry there
    if not (ROOT / origin).is_file():
        return markdown

    def on_site(match):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), match[2]))
        place = f'source/{path}.md' if is_source(path) else place_of(path)
        if place in config.extra['planned']:
            return match[1]  # an empty target, which makes plain text
        if '://' in match[2] or not (ROOT / path).is_file():
            return match[0]
        return match[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or '.')
    parts = FENCE.split(markdown)
    parts[::2] = [LIST_AFTER_TEXT.sub(r'\1\n', LINK.sub(on_site, part)) for part in parts[::2]]
    return ''.join(parts)
