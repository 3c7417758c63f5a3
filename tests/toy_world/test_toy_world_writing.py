"""The toy world on disk: shards, resumed runs, and exported files."""
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch

from clipgs_plugin import read_gaussians
from clipgs_plugin.tools import make_toy_world
from clipgs_plugin.toy_world import make_object, object_specs, render_views, world, writing
from clipgs_plugin.triplets import ShardReader

SMALL = dict(num_train=9, num_val=2, num_test=4, num_views=2, size=32, num_gaussians=64)


def folder_bytes(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob('*') if path.is_file()}


def test_shards_contain_the_world_and_do_not_depend_on_workers(tmp_path):
    for workers in (1, 2):
        assert writing.write_world(tmp_path / str(workers), **SMALL, workers=workers) == 15
    assert folder_bytes(tmp_path / '1') == folder_bytes(tmp_path / '2')
    reader = ShardReader(tmp_path / '1')
    assert Counter(reader.splits) == dict(train=9, val=2, test=4) and reader.num_views == 2
    for split in ('train', 'val', 'test'):
        for spec in object_specs(SMALL[f'num_{split}'], 0, split):
            i = reader.uids.index(spec.uid)
            record, toy = reader.read_record(i), make_object(spec, 64)
            assert [caption['text'] for caption in record['captions']] == toy.captions
            assert record['category'] == spec.category and record['attributes'] == spec.attributes
            assert (reader.read_gaussians(i).means - toy.gaussians.means).abs().max() < 1e-3
            views = render_views(spec, 2, 32).astype(int)
            assert np.abs(reader.read_views(i).astype(int) - views).mean() < 10  # WebP, quality 90
            assert np.allclose(record['source']['viewpoints'], world.viewpoints(spec, 2), atol=1e-3)


def test_interrupted_run_resumes_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, 'ShardWriter', partial(writing.ShardWriter, objects_per_shard=4))
    assert writing.write_world(tmp_path / 'whole', **SMALL, workers=1) == 15

    def interrupted(specs):
        yield from specs[:6]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writing.write_world(tmp_path / 'cut', **SMALL, workers=1, track=interrupted)
    assert not (tmp_path / 'cut' / 'index.parquet').exists()
    assert writing.write_world(tmp_path / 'cut', **SMALL, workers=1) == 15 - 4
    assert folder_bytes(tmp_path / 'cut') == folder_bytes(tmp_path / 'whole')
    assert writing.write_world(tmp_path / 'cut', **SMALL, workers=1) == 0
    with pytest.raises(ValueError, match='num_gaussians'):
        writing.write_world(tmp_path / 'cut', **{**SMALL, 'num_gaussians': 65})


def test_program_writes_shards_and_named_splat_files(tmp_path, capsys):
    status = make_toy_world.main([str(tmp_path / 'world'), '--num-train', '2', '--num-val', '1', '--num-test', '1',
                                  '--num-views', '1', '--size', '16', '--num-gaussians', '64', '--workers', '1',
                                  '--export', str(tmp_path / 'files'), '--num-export', '4'])
    assert status == 0 and len(ShardReader(tmp_path / 'world')) == 4
    files = sorted((tmp_path / 'files').iterdir())
    assert sorted(capsys.readouterr().out.split()) == [str(path) for path in files]
    assert Counter(path.suffix for path in files) == {'.ply': 2, '.splat': 1, '.spz': 1}
    specs = {spec.name: spec for spec in writing.export_specs(4)}
    trained = {(s.category, *s.look) for s in object_specs(6000, 0)}
    for path in files:
        spec = specs[path.stem]
        assert path.stem.startswith(spec.look[0]) and path.stem.endswith(spec.category.replace(' ', '_'))
        assert (spec.category, *spec.look) not in trained
        means, expected = read_gaussians(path).means, make_object(spec, 64).gaussians.means
        assert torch.cdist(means, expected).min(1).values.max() < 0.01


def test_any_number_of_files_is_exported_each_with_a_name_and_an_object_of_its_own(tmp_path):
    paths = writing.export_files(tmp_path, 25, num_gaussians=16)
    assert len(set(paths)) == 25 and paths[:4] == writing.export_files(tmp_path, 4, num_gaussians=16)
    assert [path.stem[-6:] for path in paths[18:]] == [f'_{i:05d}' for i in range(18, 25)]
    specs = writing.export_specs(25)
    assert len({spec.seed for spec in specs}) == len({spec.uid for spec in specs}) == 25
    trained = {(s.category, *s.look) for s in object_specs(6000, 0)}
    assert not trained & {(spec.category, *spec.look) for spec in specs}
    with pytest.raises(ValueError, match='num_objects=-1'):
        writing.export_specs(-1)


@pytest.mark.parametrize('wrong', [dict(num_train=-1), dict(num_views=0), dict(workers=0)])
def test_invalid_numbers_are_named(tmp_path, wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f'{name}={value}'):
        writing.write_world(tmp_path, **{**SMALL, **wrong})
