"""Maps of embeddings: their axes, and a page that holds everything itself."""
import re
import sys
import types

import numpy as np
import pytest

from clipgs_plugin.visualization.embedding_map import EmbeddingMap, has_umap, map_section, project


def test_pca_finds_the_axes_of_the_largest_spread():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(200, 2)) * (3, 1)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0][:2]
    places, others, words = project(plane @ turn + 5, others=turn * 2)
    centred = plane - plane.mean(0)
    assert np.allclose(places @ places.T, centred @ centred.T) and '100 %' in words
    assert places.var(0)[0] > places.var(0)[1]
    assert np.allclose(others.sum(0), 0) and np.allclose(np.linalg.norm(others[0] - others[1]), 2 * 2 ** 0.5)
    assert np.array_equal(places, project(plane @ turn + 5)[0])


def test_a_method_is_pca_or_umap():
    with pytest.raises(ValueError, match="expected 'pca' or 'umap'"):
        project(np.eye(3), 'tsne')


@pytest.mark.skipif(has_umap(), reason='umap-learn is installed')
def test_umap_is_optional():
    with pytest.raises(ImportError):
        project(np.eye(3), 'umap')


def test_two_thousand_objects_stay_small_and_share_their_pictures():
    rng = np.random.default_rng(0)
    x, y = np.mgrid[:96, :96] / 96
    pictures = [(255 * np.stack([x * a, y * b, 0.5 + 0.5 * np.sin(9 * x + a)], -1)).astype(np.uint8)
                for a, b in rng.random((2000, 2))]
    labels = rng.integers(0, 60, 2000)
    maps = [EmbeddingMap(f'<run {i}>', {'PCA': rng.normal(size=(2000, 2))}, labels.tolist(),
                         ['a </title><script>alert(1)</script>'] * 2000, ['c<l>ass'] * 60,
                         {'PCA': rng.normal(size=(60, 2))}, pictures) for i in range(2)]
    content, style = map_section(maps)
    assert len(content) + len(style) < 4e6
    assert content.count('<circle') == 4000 and content.count('class="star"') == 120
    assert style.count('data:image/webp') == 1 and '#sheet1' not in style
    assert '<script>alert' not in content and '<run' not in content and 'c<l>ass' not in content
    assert not re.search(r'(?:src|href)="?http', content + style)


def test_places_are_scaled_alike_and_up_is_up():
    points = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
    content, _ = map_section([EmbeddingMap('m', {'PCA': points}, [0, -1, 1], 'abc', ['p', 'q'])])
    drawn = np.array([[float(x), float(y)] for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', content)])
    moved = drawn - drawn[0]
    assert moved[1][0] > 0 == moved[1][1] and moved[2][1] < 0 == moved[2][0]
    assert np.isclose(moved[1][0], -2 * moved[2][1], atol=0.2) and 'fill="#888"' in content


def test_few_vectors_are_laid_out_by_pca(monkeypatch):
    monkeypatch.setitem(sys.modules, 'umap', types.ModuleType('umap'))  # which would fail
    places, _, note = project(np.eye(3), 'umap')
    assert np.allclose(places, project(np.eye(3))[0]) and note.startswith('PCA')
