"""The site of the documentation, built strictly: a link or name that leads nowhere fails."""
import re
import subprocess
import sys

import pytest

pytest.importorskip('material')
pytest.importorskip('mkdocstrings_handlers.python')

from clipgs_plugin.tools.dev._docs_site import completed, origin_of, pages_of, place_of


@pytest.fixture(scope='module')
def site(root, tmp_path_factory):
    """Build the site, without a network."""
    folder = tmp_path_factory.mktemp('site')
    done = subprocess.run([sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', folder],
                          cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_readme_configs_cards_and_docs_are_pages(root, site):
    pages = {path.relative_to(site).as_posix() for path in site.rglob('*.html')}
    names = {f'{path.stem}.html' for path in (root / 'docs').glob('*.md')}
    folders = {path.parent.relative_to(root).as_posix() for path in
               (*root.glob('configs/*/README.md'), *root.glob('clipgs_plugin/weights/*/README.md'))}
    assert names | {f'{folder}/index.html' for folder in folders} | {'index.html', 'CHANGELOG.html'} <= pages


def test_every_public_name_of_the_design_is_in_the_reference(root, site):
    text = (root / 'docs' / 'design.md').read_text(encoding='utf-8')
    section = text[text.index('## 5.'):text.index('## 6.')]
    types = section[section.index('mmengine types'):section.index('tools/train.py')]
    names = {*re.findall(r'clipgs_plugin\.(?:\w+\.)*(\w+)\(', section), *re.findall(r"\b[A-Z]\w*[A-Z]\w*\b", types)}
    anchors = {name for path in (site / 'api').glob('*.html')
               for name in re.findall(r'id="clipgs_plugin\.(?:\w+\.)*(\w+)"', path.read_text(encoding='utf-8'))}
    assert len(names) > 60 and names <= anchors


def test_the_reference_has_shapes_errors_and_source(site):
    page = (site / 'api' / 'clipgs_plugin.ops.html').read_text(encoding='utf-8')
    knn = page[page.index('id="clipgs_plugin.ops.knn"'):page.index('id="clipgs_plugin.ops.look_at"')]
    assert '(B, ' in knn and 'Source code in' in knn and 'ValueError' in page
    models = (site / 'api' / 'clipgs_plugin.models.html').read_text(encoding='utf-8')
    prose = re.sub(r'<pre.*?</pre>', '', models, flags=re.DOTALL)
    assert not re.search(r':class:|:math:|\.\. math::', prose)
    assert '<span class="k">\\mathrm</span>' in models  # a formula, highlighted as LaTeX


def test_links_between_files_are_links_between_pages(site):
    start = (site / 'index.html').read_text(encoding='utf-8')
    for target in ('models.html#without-the-clip-model', 'configs/clipgs/index.html', 'CHANGELOG.html',
                   'source/CITATION.cff.html', 'images/retrieval.png'):
        assert f'"{target}"' in start
        assert (site / target.partition('#')[0]).is_file()
    tables = (site / 'configs' / 'ablations' / 'index.html').read_text(encoding='utf-8')
    assert '"../../source/configs/ablations/voting.py.html"' in tables


def test_nothing_is_loaded_from_another_host(site):
    for path in site.rglob('*.html'):
        text = path.read_text(encoding='utf-8')
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//[^>]*>', text), path
        assert not re.findall(r'<link[^>]*rel="?(?:stylesheet|preconnect|icon)[^>]*//[^>]*>', text), path
    for path in site.rglob('*.css'):
        assert not re.findall(r'(?:@import|url\()\s*["\']?(?:https?:)?//', path.read_text(encoding='utf-8')), path


def test_a_list_directly_after_text_is_a_list(site):
    design = (site / 'design.html').read_text(encoding='utf-8')
    assert re.search(r'<ol>\s*<li>The experimenter writes', design)


def test_navigation_drops_what_is_not_there_and_adds_the_rest():
    nav = [{'Start': 'index.md'}, {'Codebases': ['a.md', 'planned.md']}, {'Results': ['planned.md']}]
    fitted = completed(nav, ['new.md', 'a.md', 'index.md'])
    assert pages_of(fitted) == ['index.md', 'a.md', 'new.md'] and fitted[-1] == {'More': ['new.md']}


@pytest.mark.parametrize('path, place', [('README.md', 'index.md'), ('docs/models.md', 'models.md'),
                                         ('configs/clipgs/README.md', 'configs/clipgs/README.md')])
def test_every_page_has_its_file(path, place):
    assert place_of(path) == place and origin_of(place) == path
