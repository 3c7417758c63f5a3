"""Groups, neighbours and files of a gallery."""
import json

import numpy as np
import pytest
from page_site import HOSTILE, make_index, make_site

from clipgs_plugin.app import gallery
from clipgs_plugin.app.clusters import cluster_names, spherical_kmeans, usual_count
from clipgs_plugin.app.gallery import GallerySettings, neighbours, write_gallery


def three_bundles():
    rng = np.random.default_rng(3)
    centers = np.eye(5)[:3]
    truth = np.array([0] * 12 + [1] * 20 + [2] * 7)
    vectors = centers[truth] + 0.05 * rng.standard_normal((39, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), truth


@pytest.mark.parametrize('seed', range(4))
def test_clusters_are_the_bundles_by_size(seed):
    vectors, truth = three_bundles()
    groups, centers = spherical_kmeans(vectors, 3, seed)
    assert (groups == np.array([1, 0, 2])[truth]).all()
    assert np.allclose(centers, np.eye(5)[[1, 0, 2]], atol=0.06)
    assert np.allclose(np.linalg.norm(centers, axis=1), 1)


def test_equal_vectors_are_one_cluster():
    groups, centers = spherical_kmeans(np.tile([[1., 0]], (6, 1)), 4)
    assert groups.tolist() == [0] * 6 and centers.tolist() == [[1, 0]]
    with pytest.raises(ValueError, match='7 clusters of 6'):
        spherical_kmeans(np.tile([[1., 0]], (6, 1)), 7)
    assert [usual_count(n) for n in (1, 2, 200, 10_000)] == [1, 1, 10, 40]


def test_clusters_are_named_by_labels_or_their_middle():
    vectors, _ = three_bundles()
    groups, centers = spherical_kmeans(vectors, 3)
    labels = ['mug'] * 12 + ['chair'] * 19 + ['sofa'] + [None] * 7
    names = [f'{i}.ply' for i in range(39)]
    middle = 32 + int((vectors[32:] @ centers[2]).argmax())
    assert cluster_names(vectors, groups, centers, labels, names) == [
        '1: chair and others', '2: mug', f'3: like {middle}.ply']


def test_neighbours_are_those_of_a_plain_sort(monkeypatch):
    monkeypatch.setattr(gallery, '_BLOCK', 8)
    vectors, _ = three_bundles()
    for i, found in enumerate(neighbours(vectors, 5)):
        order = [j for j in np.argsort(-(vectors @ vectors[i]), kind='stable') if j != i]
        assert found == order[:5]
    assert neighbours(vectors[:1], 0) == [[]]


def test_a_gallery_holds_its_data_and_is_replaced_but_nothing_else_is(tmp_path):
    names = ['plain.ply', *HOSTILE]
    site = make_site(tmp_path, make_index(tmp_path, names, category=['a', 'b', 'a', 'b', 'a', 'b', '</script>']))
    out, failed = tmp_path / 'gallery', []

    def write(rows):
        return write_gallery(site.catalog, site.thumbnails, np.asarray(rows), out,
                             GallerySettings('<title>', 'category', 2), 2,
                             lambda row, error: failed.append(row) if error else None)
    write(range(7))
    (tmp_path / 'splats' / names[2]).unlink()
    assert write([1, 2, 6]) == out / 'index.html'
    assert failed == [2] and {path.name for path in (out / 'thumbnails').iterdir()} == {'0.webp', '2.webp'}
    text = (out / 'data.js').read_text()
    data = json.loads(text.removeprefix('window.GALLERY = ').removesuffix(';\n'))
    assert data['names'] == [names[1], names[2], names[6]]
    assert data['groupings'][0] == dict(title='category', values=['</script>', 'a', 'b', 'without'], of=[2, 1, 0])
    assert {frozenset(near) for near in data['near']} == {frozenset({1, 2}), frozenset({0, 2}), frozenset({0, 1})}
    (out / 'data.js').write_text('mine')
    with pytest.raises(FileExistsError, match='is not a gallery'):
        write([1])
    with pytest.raises(ValueError, match='0 objects'):
        write([])
