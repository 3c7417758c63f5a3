"""Sets of splats in ``.ply`` with their classes in the names: ModelNet_Splats and ShapeSplats."""
from __future__ import annotations

from clipgs_plugin.datasets.public.base import Entry, Listing, PublicSet, match_all, readable
from clipgs_plugin.datasets.public.class_names import SHAPENET
from clipgs_plugin.io.archives import Place, list_places
from clipgs_plugin.io.files import read_text
from clipgs_plugin.io.formats import parse_gaussians
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.structures import GaussianCloud


class SplatSet(PublicSet):
    """Set of ``.ply`` splats that lie in folders, zips or tars; a pattern of their names tells uid and class."""

    quirks = (dict(type='TameGaussians'),)

    def read(self, entry: Entry) -> GaussianCloud:
        return parse_gaussians(entry.place.read(), entry.place.name)

    def find(self, pattern: str) -> list[tuple[Place, dict[str, str]]]:
        """List the files whose names match a pattern, with its groups; of files with equal groups the first counts."""
        match = match_all(pattern)
        found: dict[tuple[str, ...], tuple[Place, dict[str, str]]] = {}
        for place in list_places(self.root, match):
            groups = match(place.name).groupdict()
            found.setdefault(tuple(groups.values()), (place, groups))
        return list(found.values())


@DATASETS.register_module()
class ModelNetSplats(SplatSet):
    """ModelNet_Splats of ShapeSplat: ModelNet40 as splats, ``CLASS/{train,test}/CLASS_NNNN/point_cloud.ply``.

    Source: Ma et al., "A Large-Scale Dataset of Gaussian Splats and Their Self-Supervised Pretraining", 2025.
    """

    up = 'z'  # that of ModelNet's meshes

    def list_entries(self) -> Listing:
        found = self.find(r'(?P<category>[a-z_]+)/(?P<split>train|test)/(?P<uid>(?P=category)_\d+)/point_cloud\.ply')
        entries = [Entry(groups['uid'], place, readable(groups['category'])) for place, groups in found
                   if groups['split'] == self.published]
        return Listing(entries, sorted({readable(groups['category']) for _, groups in found}))


@DATASETS.register_module()
class ShapeSplats(SplatSet):
    """ShapeSplatsV1, ShapeNetCore as splats: ``SYNSET-MODEL.ply``, in older zips ``SYNSET/MODEL/.../point_cloud.ply``.

    The published lists ``train.txt`` and ``test.txt``, lines ``SYNSET-MODEL.ply``, lie anywhere below root, such as in
    ``shapenet_split/``. All of ``test`` are in the published ``train.txt`` too, and ShapeNet has some models in several
    synsets. Here ``train`` leaves out the models of ``test``, and ``fit`` and ``val`` have no model in common. ``all``
    needs no list. Classes are those of ShapeNetCore that the set has, by the order of their synsets.

    Source: Ma et al., "A Large-Scale Dataset of Gaussian Splats and Their Self-Supervised Pretraining", 2025.
    """

    splits = ('train', 'test', 'all')
    up = 'z'  # that of the renderer's world, into which the y-up meshes were imported

    def list_entries(self) -> Listing:
        found = {f"{groups['synset']}-{groups['uid']}": (place, groups['synset']) for place, groups in self.find(
            r'(?P<synset>\d{8})[-/](?P<uid>[\w-]+)(?:/(?:[^/]+/)*point_cloud)?\.ply')}
        classes = [SHAPENET.get(synset, synset) for synset in sorted({synset for _, synset in found.values()})]
        names = list(found) if self.published == 'all' else self._read_list(self.published)
        if self.published == 'train':
            tested = set(map(self.shape_of, self._read_list('test')))
            names = [name for name in names if self.shape_of(name) not in tested]
        entries = [Entry(name, found[name][0], SHAPENET.get(found[name][1], found[name][1])) for name in names
                   if name in found]
        return Listing(entries, classes, [name for name in names if name not in found])

    def shape_of(self, uid: str) -> str:
        return uid.partition('-')[2]

    def _read_list(self, split: str) -> list[str]:
        lists = sorted(self.root.rglob(f'{split}.txt'))
        if not lists:
            raise FileNotFoundError(f"{self.root}: lacks {split}.txt, ShapeSplat's list of the split; put its folder "
                                    "shapenet_split beside the splats, or choose split='all'")
        return [line.strip().removesuffix('.ply') for line in read_text(lists[0]).splitlines() if line.strip()]
