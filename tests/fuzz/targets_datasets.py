"""Readers of published sets, of archives by offset, of pickles, of few-shot files and of shared models."""
import gzip
import io
import json
import pickle
import tarfile
import zipfile
import zlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from harness import Target
from mutations import INTEGERS
from targets_triplets import repacked

from clipgs_plugin import get_config
from clipgs_plugin.apis.frozen import FrozenFeatures
from clipgs_plugin.datasets import FewShotEpisodes, load_episodes
from clipgs_plugin.datasets.public.abo import PARTS, read_abo_types
from clipgs_plugin.datasets.published_folds import PublishedFold
from clipgs_plugin.evaluation.few_shot import Trial
from clipgs_plugin.evaluation.trials import KeptTrials
from clipgs_plugin.io.archives import list_places, read_from_tar_gz
from clipgs_plugin.io.pickles import read_pickle
from clipgs_plugin.models.pretrained import load_pretrained, save_pretrained
from clipgs_plugin.models.shared_config import read_shared_config
from clipgs_plugin.registry import DATASETS, MODELS

MEMBERS = {'a/one.txt': b'one' * 50, 'a/two.bin': bytes(range(256)), 'b/empty': b''}


# Trials of heads that tune an encoder

def trials(folder: Path) -> Path:
    lines = [json.dumps(dict(key=64 * key, accuracy=72.5, published=best)) for key, best in (('a', None), ('b', 80.0))]
    (folder / 'trials.jsonl').write_text(''.join(f'{line}\n' for line in lines))
    return folder / 'trials.jsonl'


def read_trials(path: Path) -> dict[str, Trial]:
    with KeptTrials(path) as kept:
        return kept.done


def unsound_trials(found: dict[str, Trial]) -> str | None:
    sound = all(0 <= value <= 100 for trial in found.values() for value in trial if value is not None)
    return None if sound else f'trials {found!r:.200}'


# HDF5

def rows(path: Path, **more: np.ndarray) -> None:
    """Write two objects of eight points, compressed as the published files are."""
    import h5py
    points = np.random.default_rng(0).normal(size=(2, 8, 3)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        for name, value in dict(data=points, label=np.array([[0], [3]], np.uint8), **more).items():
            file.create_dataset(name, data=value, compression='gzip' if name == 'data' else None)


def modelnet(folder: Path) -> Path:
    rows(folder / 'ply_data_test0.h5', normal=np.ones((2, 8, 3), np.float32))
    (folder / 'ply_data_test_0_id2file.json').write_text(json.dumps(['airplane/airplane_0627.ply', 'bed/bed_0516.ply']))
    return folder


def scans(folder: Path) -> Path:
    rows(folder / 'main_split' / 'test_objectdataset_augmentedrot_scale75.h5')
    return folder


def read_set(folder: Path, kind: str) -> list:
    return list(DATASETS.build(dict(type=kind, root=folder)))


def unsound_points(items: list) -> str | None:
    wrong = [item['uid'] for item in items if not item['gaussians'].means.isfinite().all() or item['label'] < 0]
    return f'objects {wrong!r:.200} are not finite or have no class' if wrong else None


def hdf5_number(data: bytes, rng: Random) -> bytes:
    """Replace an aligned number near the structures of the file, which are mostly zeros."""
    start = rng.choice([i for i in range(0, len(data) - 8, 8) if data[i:i + 8].strip(b'\0')] or [0])
    return data[:start] + rng.choice(INTEGERS).to_bytes(8, 'little') + data[start + 8:]


# Archives

def archives(folder: Path, suffix: str) -> Path:
    """Write an archive and the index of its members."""
    if suffix == 'zip':
        with zipfile.ZipFile(folder / 'set.zip', 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, content in MEMBERS.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED if len(name) > 8 else None)
    else:
        with tarfile.open(folder / 'set.tar', 'w') as archive:
            add_members(archive)
    list_places(folder, accept_all)
    return folder


def add_members(archive: tarfile.TarFile) -> None:
    for name, content in MEMBERS.items():
        item = tarfile.TarInfo(name)
        item.size = len(content)
        archive.addfile(item, io.BytesIO(content))


def packed(folder: Path) -> Path:
    with tarfile.open(folder / 'one.tar.gz', 'w:gz', compresslevel=1) as archive:
        add_members(archive)
    return folder / 'one.tar.gz'


def accept_all(name: str) -> bool:
    return True


def read_places(folder: Path) -> list[tuple[str, bytes, Path]]:
    return [(place.name, place.read(), folder) for place in list_places(folder, accept_all)]


def unsound_members(found: list[tuple[str, bytes, Path]]) -> str | None:
    """Compare with what the standard library reads."""
    for name, content, folder in found:
        if name.startswith('set.zip/'):
            damaged = suppress(zipfile.BadZipFile, zlib.error, LookupError, RuntimeError)
            with zipfile.ZipFile(folder / 'set.zip') as archive, damaged:
                expected = {item.filename: item for item in archive.infolist()}[name.removeprefix('set.zip/')]
                if [item.filename for item in archive.infolist()].count(expected.filename) == 1 and (
                        archive.read(expected) != content):
                    return f'other content in {name!r:.200}'
    return None


# Pickles

def arrays() -> dict:
    """Return what published sets pickle: arrays of numbers, text and objects, in lists, tuples and dicts."""
    rng = np.random.default_rng(0)
    return dict(xyz=rng.normal(size=(8, 3)).astype(np.float32), rgb=rng.random((8, 3)), names=np.array(['a', 'bc']),
                items=[(np.int32(3), 'text', b'\1\2'), [1.5, None, True]], objects=np.array([{'k': 1}, 'x'], object))


def pickled(folder: Path, protocol: int) -> Path:
    (folder / 'a.pkl').write_bytes(pickle.dumps(arrays(), protocol))
    return folder / 'a.pkl'


def object_npy(folder: Path) -> Path:
    np.save(folder / 'a.npy', np.array(arrays(), object), allow_pickle=True)
    return folder / 'a.npy'


def torch_file(folder: Path) -> Path:
    torch.save(arrays(), folder / 'a.pt')
    return folder / 'a.pt'


def unsound_data(value: object) -> str | None:
    """Only plain data may come out of a pickle."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, np.ndarray) and item.dtype.hasobject:
            pending += item.reshape(-1).tolist()
        elif isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, (list, tuple)):
            pending += item
        elif item is not None and not isinstance(item, (str, bytes, bytearray, int, float, complex, np.generic,
                                                        np.ndarray)):
            return f'an object of type {type(item).__name__}'
    return None


# Listings

def listings(folder: Path) -> Path:
    """Write the sixteen files of ABO's listings, each with a model and a product without one."""
    for part in PARTS:
        rows = [{'item_id': part}, {'3dmodel_id': f'B{part}', 'product_type': [{'value': 'CHAIR'}], 'country': 'US'}]
        (folder / f'listings_{part}.json.gz').write_bytes(gzip.compress('\n'.join(map(json.dumps, rows)).encode()))
    return folder


def unsound_types(types: dict) -> str | None:
    wrong = [item for item in types.items() if not all(isinstance(text, str) and text for text in item)]
    return f'types without a name {wrong!r:.200}' if wrong else None


# Few-shot

def features() -> FrozenFeatures:
    return FrozenFeatures(torch.eye(8)[:6], torch.tensor([0, 0, 0, 1, 1, 1]), [f'o{i}' for i in range(6)],
                          ['cup', 'owl'], 'abc')


def frozen(folder: Path) -> Path:
    features().save(folder / 'support.npz')
    return folder / 'support.npz'


def episodes(folder: Path) -> Path:
    FewShotEpisodes(features(), ways=2, shots=1, queries=2, trials=2).save(folder / '2way1shot.json')
    return folder / '2way1shot.json'


def fold(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = {part: [(rng.normal(size=(8, 6)).astype(np.float32), label, np.int32(7 - label)) for label in range(2)]
             for part in ('train', 'test')}
    (folder / '2way1shot').mkdir()
    (folder / '2way1shot' / '0.pkl').write_bytes(pickle.dumps(parts, 4))
    return folder


def unsound_episodes(found: list) -> str | None:
    wrong = [episode for episode in found if not len(episode.classes) == len(episode.support) == len(episode.query)]
    return f'uneven tasks {wrong!r:.200}' if wrong else None


# Shared models

def shared(folder: Path) -> Path:
    """Write a model of a few kB as it is shared."""
    cfg = get_config('clipgs_pointbert-nano_15e_toy-world')
    cfg.model.encoder.update(embed_dim=8)
    cfg.model.encoder.tokenizer.update(num_groups=4, group_size=4, channels=8, patch_encoder=dict(widths=(4, 4, 8)),
                                       refine_widths=(4, 4, 8))
    cfg.model.encoder.backbone.update(depth=1, embed_dims=8, num_heads=2, in_channels=8)
    model = MODELS.build({**cfg.model, 'teacher': None})
    model.cfg = cfg
    save_pretrained(model, folder, 'owner/name', {'license': 'mit', 'metrics': {'top1': 1.5}})
    return folder


SHARED = ('README.md', '*.safetensors')

HDF5 = [
    Target('hdf5-modelnet40', modelnet, partial(read_set, kind='ModelNet40HDF5'), unsound_points, (hdf5_number,)),
    Target('hdf5-scanobjectnn', scans, partial(read_set, kind='ScanObjectNN'), unsound_points, (hdf5_number,)),
]
TARGETS = [
    *HDF5,
    Target('archive-zip', partial(archives, suffix='zip'), read_places, unsound_members, kept=('.*',)),
    Target('archive-tar', partial(archives, suffix='tar'), read_places, kept=('.*',)),
    Target('archive-index', partial(archives, suffix='zip'), read_places, kept=('*.zip',)),
    Target('archive-tar-gz', packed, partial(read_from_tar_gz, name='two.bin')),
    Target('pickle-2', partial(pickled, protocol=2), read_pickle, unsound_data),
    Target('pickle-5', partial(pickled, protocol=5), read_pickle, unsound_data),
    Target('pickle-npy', object_npy, read_pickle, unsound_data),
    Target('pickle-torch', torch_file, read_pickle, unsound_data),
    Target('abo-listings', listings, read_abo_types, unsound_types),
    Target('few-shot-features', frozen, FrozenFeatures.load, damage=(repacked,),
           check=lambda found: None if found.embeddings.isfinite().all() else 'features that are not finite'),
    Target('few-shot-episodes', episodes, load_episodes, unsound_episodes),
    Target('few-shot-trials', trials, read_trials, unsound_trials),
    Target('few-shot-fold', fold, lambda folder: list(PublishedFold(folder, 2, 1, 0, 'test')), unsound_points),
    Target('shared-config', shared, lambda folder: read_shared_config(folder / 'config.json'), kept=SHARED),
    Target('shared-model', shared, load_pretrained, kept=SHARED),
]
