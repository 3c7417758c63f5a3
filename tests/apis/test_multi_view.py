"""Views in a CLIP model as a model by name: inference, search and programs."""
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from clipgs_plugin import CLIPGSInferencer, get_model, read_gaussians, write_gaussians
from clipgs_plugin.apis import SearchIndex
from clipgs_plugin.apis.multi_view import multi_view_config
from clipgs_plugin.models import MultiViewCLIP
from clipgs_plugin.models.teachers.sources import model_of_features
from clipgs_plugin.ops import axis_change
from clipgs_plugin.tools import cache_features, embed, search
from clipgs_plugin.tools import test as test_program
from clipgs_plugin.toy_world.writing import export_files, write_world
from clipgs_plugin.triplets import ShardReader

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Splat files of toys, by category."""
    paths = export_files(tmp_path_factory.mktemp('toys'), 5)
    return {path.stem: path for path in map(Path, paths)}


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp('world')
    write_world(root, num_train=3, num_val=0, num_test=4, num_views=3, track=iter)
    cache_features.main([str(root), '--teacher', 'toy-clip'])
    return root


@pytest.fixture(scope='module')
def views():
    return CLIPGSInferencer('views:toy-clip')


def test_a_name_builds_the_model_with_its_teacher_once(views):
    assert isinstance(views.model, MultiViewCLIP) and views.name == 'views:toy-clip'
    assert views.teacher is views.model.teacher and not views.model.training


def test_splats_are_near_the_text_that_describes_them(views, files):
    categories = list(files)
    answers = views.classify(list(files.values()), [name.replace('_', ' ') for name in categories], templates='toy')
    right = sum(answer[0][0] == name.replace('_', ' ') for answer, name in zip(answers, categories))
    assert right >= len(categories) - 1


def test_the_pipeline_keeps_what_is_rendered(random_cloud):
    clipgs = CLIPGSInferencer('views:toy-clip')
    cloud = random_cloud(12_000, sh_degree=2)
    found = clipgs.prepare(cloud)
    assert found.sh_degree == 2 and len(found) == 12_000
    assert multi_view_config('views:ViT-B-32').test_dataloader.dataset.pipeline[0] == dict(
        type='clipgs_plugin.LoadGaussians')


def test_a_name_carries_teacher_and_tag():
    cfg = multi_view_config('views:PE-Core-B-16@meta')
    for teacher in (cfg.teacher, cfg.model.teacher, cfg.test_evaluator.teacher):
        assert (teacher.model, teacher.pretrained) == ('PE-Core-B-16', 'meta')
    assert multi_view_config('views:vit-b-32-openai').model.teacher.pretrained is None
    with pytest.raises(ValueError, match='names no teacher'):
        get_model('views:')
    with pytest.raises(ValueError, match='close matches: toy-clip'):
        get_model('views:toy-clyp')
    with pytest.raises(ValueError, match='no weights besides those of its teacher'):
        get_model('views:toy-clip', 'best.pth')


def test_programs_refuse_teachers_of_random_weights(files, tmp_path):
    (tmp_path / 'tiny-random-clip.json').write_text(json.dumps(dict(
        embed_dim=32, vision_cfg=dict(image_size=32, patch_size=16, width=64, layers=1, head_width=32),
        text_cfg=dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1))))
    open_clip.add_model_config(tmp_path / 'tiny-random-clip.json')
    with pytest.raises(ValueError, match='without weights'):
        embed.main([*map(str, files.values()), '-o', str(tmp_path / 'e.npz'), '--model',
                    'views:tiny-random-clip'])


@pytest.mark.parametrize('split, count', [(None, 7), ('test', 4)])
def test_cached_features_of_views_are_an_index(world, split, count):
    reader = ShardReader(world)
    found = SearchIndex.from_features(world, 'toy-clip', split)
    rows = [i for i, name in enumerate(reader.splits) if split in (None, name)]
    assert len(found) == count and found.model == 'views:toy-clip'
    teacher = CLIPGSInferencer('views:toy-clip').teacher
    for row, i in zip(found.embeddings, rows):
        pictures = torch.from_numpy(reader.read_views(i)).permute(0, 3, 1, 2)
        assert row @ normalize(teacher.encode_image(pictures).mean(0), dim=0) > 0.9999
    assert [path.rsplit('/', 1)[1].split('.')[0] for path in found.paths] == [reader.uids[i] for i in rows]
    assert found.paths[0].startswith(str(world.resolve() / 'shards' / '00000.tar'))


def test_an_index_names_what_is_missing(world):
    with pytest.raises(ValueError, match=r"no objects of split 'val', only of \['test', 'train'\]"):
        SearchIndex.from_features(world, 'toy-clip', 'val')
    with pytest.raises(FileNotFoundError, match='no features of teacher'):
        SearchIndex.from_features(world, 'vit-b-32-openai')


def test_names_of_features_lead_to_models():
    assert model_of_features('ViT-B-32-laion2b_s34b_b79k') == 'views:ViT-B-32@laion2b_s34b_b79k'
    assert model_of_features('vit-b-32-openai') == 'views:vit-b-32-openai'


def test_programs_index_features_and_search_them_by_text_and_by_splat(world, tmp_path, capsys):
    index = tmp_path / 'e.npz'
    assert embed.main([str(world), '--features', 'toy-clip', '--split', 'test', '-o', str(index)]) == 0
    reader = ShardReader(world)
    i = reader.splits.index('test')
    caption = reader.read_record(i)['captions'][0]['text']
    capsys.readouterr()
    assert search.main([str(index), '--text', caption, '--json', '-k', '1']) == 0
    assert reader.uids[i] in json.loads(capsys.readouterr().out)[0]['path']
    write_gaussians(reader.read_gaussians(i), tmp_path / 'query.ply')
    assert search.main([str(index), '--gaussians', str(tmp_path / 'query.ply'), '--json', '-k', '1']) == 0
    assert reader.uids[i] in json.loads(capsys.readouterr().out)[0]['path']
    with pytest.raises(SystemExit, match='2'):
        embed.main([str(world), '--split', 'test', '-o', str(index)])


def test_the_test_program_evaluates_views_without_a_checkpoint(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('CLIPGS_TOY_WORLD', str(world))
    out = tmp_path / 'p.npz'
    assert test_program.main(['views_toy-clip_0e_toy-world', '--work-dir', str(tmp_path / 'run'), '--json', '--out',
                              str(out), '--cfg-options', 'model.num_views=3']) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics['zero_shot/top5'] >= 75 and metrics['retrieval/text_to_3d_R@1'] >= 75
    with np.load(out) as arrays:
        assert arrays['embedding'].shape == (4, 128)
    with pytest.raises(SystemExit, match='2'):
        test_program.main(['clipgs_pointbert-nano_15e_toy-world'])
    assert 'name their checkpoint' in capsys.readouterr().err


def test_the_test_program_takes_labelled_files_in_place_of_triplets(files, tmp_path, capsys):
    for name, path in files.items():
        folder = tmp_path / 'data' / 'test' / name.replace('_', ' ')
        folder.mkdir(parents=True)
        write_gaussians(read_gaussians(path).transform(axis_change('y', 'z')), folder / 'a.ply')
    assert test_program.main(['views:toy-clip', '--work-dir', str(tmp_path / 'run'), '--json', '--cfg-options',
                              f'data_root={tmp_path / "data"}', 'up=z', 'model.num_views=3']) == 0
    out, err = capsys.readouterr()
    assert 'has labelled files; those of' in err and 'retrieval is not measured' in err
    metrics = json.loads(out)
    assert metrics['zero_shot/top1'] >= 80 and not any(name.startswith('retrieval') for name in metrics)
