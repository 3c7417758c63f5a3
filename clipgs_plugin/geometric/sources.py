"""Places from which the datasets of torch-geometric take objects."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipgs_plugin import read_gaussians
from clipgs_plugin.datasets import GaussianFolder, TripletDataset
from clipgs_plugin.geometric.data import GaussianData
from clipgs_plugin.io import find_splats
from clipgs_plugin.triplets.layout import SETTINGS

GRAPH_KEYS = {'uid': 'uid', 'category': 'category', 'label': 'y', 'caption': 'caption', 'text': 'text',
              'views': 'views', 'split': 'part'}


def read_objects(source: str | Path, features: str | None = None,
                 sh_degree: int | None = None) -> Iterator[GaussianData]:
    """Read the objects of a folder one by one.

    Args:
        source: A triplet set; or a folder of class folders, ``source/CLASS/NAME.ply``; or any folder of splat files.
        features: Teacher whose cached features a triplet set has, which become ``text`` (1, E) and ``views`` (1, K, E).
        sh_degree: Degree to which SH are truncated or padded, so that objects fit into one batch; None keeps theirs.

    Yields:
        Objects with ``uid`` and, if the folder has them, ``category``, ``y``, ``caption``, ``text``, ``views`` and
        ``part`` (the split: ``'train'``, ``'val'`` or ``'test'``).

    Raises:
        FileNotFoundError: The source is not a folder.
        ValueError: The source has no splat file, or ``features`` are given without a triplet set.
    """
    source = Path(source)
    if not source.is_dir():
        raise FileNotFoundError(f'{source} is not a folder; expected a triplet set or a folder of splat files')
    triplets = (source / SETTINGS).is_file()
    if features is not None and not triplets:
        raise ValueError(f'features={features!r}: {source} is not a triplet set (it has no {SETTINGS}), and only '
                         'triplet sets have cached features; leave out features')
    for item in _triplets(source, features) if triplets else _files(source):
        cloud = item['gaussians']
        graph = {name: item[key] for key, name in GRAPH_KEYS.items() if key in item}
        yield GaussianData.from_cloud(cloud if sh_degree is None else cloud.with_sh_degree(sh_degree), **graph)


def _triplets(source: Path, features: str | None) -> Iterator[dict]:
    dataset = TripletDataset(source, split=None, features=features, test_mode=True)
    for index, row in enumerate(dataset.rows):
        yield {**dataset[index], 'split': dataset.reader.splits[row]}


def _files(source: Path) -> Iterator[dict]:
    files = find_splats(source)
    if not files:
        raise ValueError(f'{source} holds no splat file that read_gaussians reads')
    if all(path.parent != source for path in files):
        dataset = GaussianFolder(source, test_mode=True)
        yield from (dataset[index] for index in range(len(dataset)))
        return
    for path in files:
        yield dict(uid=path.relative_to(source).as_posix(), gaussians=read_gaussians(path).validate(str(path)))
