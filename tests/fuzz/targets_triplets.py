"""Readers of triplet datasets, of cached features and of embeddings."""
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import torch
from harness import Target
from mutations import damage
from targets_io import cloud

from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.evaluation import ClassEmbeddings, ConfusionMatrix, EvaluationRecord
from clipgs_plugin.triplets import FeatureWriter, ShardFeatures, ShardReader, ShardWriter, rebuild_index

CLASSES = ['cup', 'owl']


def dataset(folder: Path) -> Path:
    """Write a dataset of three objects in two shards."""
    views = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    with ShardWriter(folder, objects_per_shard=2) as writer:
        for i in range(3):
            writer.write(f'o{i}', cloud(8, 0), views, captions=['a cup', 'a small cup'], category='cup',
                         quality=dict(psnr=30.0))
    return folder


def features(folder: Path) -> Path:
    """Write a dataset with features of a teacher."""
    reader = ShardReader(dataset(folder))
    writer = FeatureWriter(reader, 'toy', 4, 'abc')
    for shard, rows in writer.pending():
        writer.write(shard, np.ones((len(rows), 2, 4)), [np.ones((2, 4))] * len(rows))
    return folder


def embeddings(folder: Path) -> Path:
    """Write an index of embeddings."""
    SearchIndex(torch.eye(4), tuple('abcd'), 'clipgs_toy').save(folder / 'embeddings.npz')
    return folder / 'embeddings.npz'


def classes(folder: Path) -> Path:
    """Write embeddings of classes."""
    ClassEmbeddings(CLASSES, torch.eye(2), 'toy-clip').save(folder / 'classes.npz')
    return folder / 'classes.npz'


def metrics(folder: Path) -> Path:
    """Write a record of an evaluation."""
    confusion = ConfusionMatrix(tuple(CLASSES), torch.tensor([[3, 1], [0, 2]]))
    EvaluationRecord('a_config', {'top1': 83.3}, 6, {'root': 'data'}, 0, 'a.pth', 'abc', {'zero_shot': confusion}
                     ).save(folder / 'metrics.json')
    return folder / 'metrics.json'


def read_dataset(folder: Path) -> list:
    """Read all of every object."""
    reader = ShardReader(folder)
    return [(reader.read_gaussians(i), reader.read_views(i), reader.read_record(i)) for i in range(len(reader))]


def read_features(folder: Path) -> list:
    """Read all features."""
    stored = ShardFeatures(ShardReader(folder), 'toy')
    return [array for i in range(len(stored.reader)) for array in (stored.image(i), stored.text(i))]


def unsound_objects(objects: list) -> str | None:
    for gaussians, views, record in objects:
        if not all(value.isfinite().all() for _, value in gaussians.fields()):
            return 'Gaussians that are not finite'
        if views.dtype != np.uint8 or not isinstance(record['captions'][0]['text'], str):
            return f'views of {views.dtype}, record {record!r:.200}'
    return None


def unsound_features(arrays: list) -> str | None:
    return None if all(np.isfinite(array).all() for array in arrays) else 'features that are not finite'


def unsound_matches(index: SearchIndex) -> str | None:
    matches = index.query(torch.nn.functional.normalize(torch.ones(index.embeddings.shape[1]), dim=0))
    sound = all(isinstance(path, str) and abs(score) < 1.01 for path, score in matches)
    return None if sound else f'matches {matches!r:.200}'


@cache
def _unpacked(data: bytes) -> dict:
    import io
    with np.load(io.BytesIO(data)) as archive:
        return {name: archive[name] for name in archive.files}


def repacked(data: bytes, rng: Random) -> bytes:
    """Damage a member of an .npz and pack it again, since the checksums of zip find most damage."""
    import io
    import zipfile
    members = {}
    for name, array in _unpacked(data).items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        members[f'{name}.npy'] = buffer.getvalue()
    name = rng.choice(sorted(members))
    members[name] = damage(members[name], rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return buffer.getvalue()


_REST = ('shards/*', 'index.parquet', 'dataset.json', 'teacher.json', '*.safetensors')


def _all_but(*damaged: str) -> tuple[str, ...]:
    return tuple(pattern for pattern in _REST if pattern not in damaged)


TARGETS = [
    Target('dataset-settings', dataset, read_dataset, unsound_objects, kept=_all_but('dataset.json')),
    Target('dataset-index', dataset, read_dataset, unsound_objects, kept=_all_but('index.parquet')),
    Target('dataset-shards', dataset, read_dataset, unsound_objects, kept=_all_but('shards/*')),
    Target('dataset-scan', dataset, rebuild_index, kept=_all_but('shards/*')),
    Target('features', features, read_features, unsound_features, kept=_all_but('*.safetensors', 'teacher.json')),
    Target('embeddings', embeddings, SearchIndex.load, unsound_matches, (repacked,)),
    Target('class-embeddings', classes, ClassEmbeddings.load,
           lambda found: None if found.embeddings.isfinite().all() else 'features that are not finite', (repacked,)),
    Target('metrics', metrics, EvaluationRecord.load),
]
