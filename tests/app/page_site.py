"""A small index, and the application of its page."""
import numpy as np
import torch
from torch.nn.functional import normalize

from clipgs_plugin import GaussianCloud, write_gaussians
from clipgs_plugin.app.catalog import Catalog
from clipgs_plugin.app.site import Site, Sites
from clipgs_plugin.app.tags import TagFile
from clipgs_plugin.app.thumbnails import Thumbnails
from clipgs_plugin.search import IndexCard, IndexWriter, SearchIndex

WIDTH, PORT, TOKEN = 8, 8737, 'secret'
HOSTILE = ('<img src=x onerror=alert(1)>.ply', "it's \"quoted\" & more.ply", 'right\u202eylp.eman.ply',
           'two\nlines.ply', 'a' * 180 + '.ply', '=1+2.ply')


def blob(color: float, count: int = 40) -> GaussianCloud:
    """Return Gaussians on a sphere, of one colour."""
    g = torch.Generator().manual_seed(int(100 * color))
    means = normalize(torch.randn(count, 3, generator=g), dim=1)
    sh = torch.full((count, 1, 3), (color - 0.5) / 0.28209479)
    quats = torch.tensor([1., 0, 0, 0]).expand(count, 4).contiguous()
    return GaussianCloud(means, quats, torch.full((count, 3), -1.5), torch.full((count,), 4.), sh)


def vectors(count: int) -> torch.Tensor:
    """Return unit vectors (count, WIDTH)."""
    return normalize(torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


class FakeEmbedder:
    """Embeds the text ``row N`` and any file as vectors of the index."""

    def text(self, text):
        if not text.startswith('row '):
            raise FileNotFoundError('the CLIP model is not here')
        return vectors(12)[int(text[4:])]

    def image(self, path):
        from clipgs_plugin.io.images import read_image
        read_image(path)
        return vectors(12)[3]

    def splat(self, path):
        from clipgs_plugin import read_gaussians
        assert len(read_gaussians(path)) == 40
        return vectors(12)[4]


def make_index(folder, names, **columns):
    """Write splats and an index of them."""
    with IndexWriter(folder / 'index', IndexCard('toy', WIDTH)) as writer:
        for i, (name, vector) in enumerate(zip(names, vectors(len(names)))):
            path = folder / 'splats' / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_gaussians(blob(i / len(names)), path)
            writer.add(path, vector, gaussians=40, up='z' if i == 1 else 'y', up_confidence=1.,
                       **{name: values[i] for name, values in columns.items()})
    return SearchIndex.load(folder / 'index')


def make_site(folder, index, exports=True):
    """Return the site of an index."""
    catalog = Catalog(index)
    return Site(catalog, Thumbnails(folder / 'page' / 'thumbnails', catalog.objects),
                TagFile(folder / 'page' / 'tags.json'), FakeEmbedder(), folder / 'exports' if exports else None)


def app_of(site, port=PORT, stamp=lambda: 'as it is'):
    """Return the application of a site."""
    from clipgs_plugin.app.server import make_app
    return make_app(Sites(lambda: site, stamp), port, TOKEN, workers=2)


def nearest(index, query, rows=None):
    """Rank all rows by a plain loop."""
    stored = index.vectors(np.arange(len(index))).numpy()
    rows = range(len(index)) if rows is None else rows
    return sorted(rows, key=lambda row: -float(np.dot(stored[row], query.numpy())))
