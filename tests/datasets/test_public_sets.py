"""Published sets of splats on small copies of their layouts, from the files to an accuracy."""
import hashlib
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from clipgs_plugin import CLIPGSInferencer, get_config, read_gaussians, write_gaussians
from clipgs_plugin.datasets.public import hash_of_uids, read_lvis_list, split_of_uid
from clipgs_plugin.datasets.transforms import TameGaussians, up_matrix
from clipgs_plugin.registry import DATASETS

UIDS = [f'{number:032x}' for number in range(40)]


def build(type, **options):
    return DATASETS.build(dict(type=type, **options))


def uids(dataset):
    return [dataset[i]['uid'] for i in range(len(dataset))]


@pytest.fixture
def splat(random_cloud, tmp_path):
    """Write a small splat; returns its bytes."""
    write_gaussians(random_cloud(40, seed=1, sh_degree=1), tmp_path / 'splat.ply')
    return (tmp_path / 'splat.ply').read_bytes()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def pack(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_modelnet_splats_have_their_classes_splits_and_frame(tmp_path, splat):
    root = tmp_path / 'modelnet'
    for name in ('chair/train/chair_0001', 'chair/test/chair_0890', 'night_stand/train/night_stand_0001'):
        put(root / name / 'point_cloud.ply', splat)
    pack(root / 'night_stand.zip', {'night_stand/test/night_stand_0201/point_cloud.ply': splat, 'readme.txt': b''})
    test = build('ModelNetSplats', root=root)
    assert test.metainfo['classes'] == ['chair', 'night stand'] and test.absent == []
    assert [(item['uid'], item['category'], item['label'], item['caption']) for item in test] == [
        ('chair_0890', 'chair', 0, 'a chair'), ('night_stand_0201', 'night stand', 1, 'a night stand')]
    assert uids(build('ModelNetSplats', root=root, split='train')) == ['chair_0001', 'night_stand_0001']
    raw = read_gaussians(root / 'chair' / 'test' / 'chair_0890' / 'point_cloud.ply')
    for item in test:  # from the folder and from the zip
        assert torch.allclose(item['gaussians'].means, raw.means @ up_matrix('z', 'y').T.float(), atol=1e-6)
    kept = build('ModelNetSplats', root=root, up='y', classes=['night stand'])
    assert torch.equal(kept[0]['gaussians'].means, raw.means) and kept[0]['label'] == 0 and len(kept) == 1
    with pytest.raises(ValueError, match="split='all': ModelNetSplats has the splits train, test, fit, val"):
        build('ModelNetSplats', root=root, split='all')
    with pytest.raises(FileNotFoundError, match=r'absent does not exist; .*docs/datasets\.md'):
        build('ModelNetSplats', root=root / 'absent')
    with pytest.raises(ValueError, match="no object of split='test' was found"):
        build('ModelNetSplats', root=root / 'chair' / 'train')


def test_train_is_divided_where_no_val_is_published(tmp_path, splat):
    names = [f'chair_{number:04d}' for number in range(30)]
    pack(tmp_path / 'chair.zip', {f'chair/train/{name}/point_cloud.ply': splat for name in names})
    parts = {split: [entry.uid for entry in build('ModelNetSplats', root=tmp_path, split=split).entries]
             for split in ('train', 'fit', 'val')}
    assert parts['train'] == names and sorted(parts['fit'] + parts['val']) == names
    assert parts['val'] == [name for name in names if split_of_uid(name) == 'val'] and 0 < len(parts['val']) < 10


def test_shapesplats_of_both_layouts_and_their_lists(tmp_path, splat):
    pack(tmp_path / '03001627_0.zip', {f'shapesplat_ply/03001627-{model}.ply': splat for model in ('aa', 'bb')})
    put(tmp_path / 'gs_data' / '02691156' / 'cc' / 'point_cloud' / 'iteration_30000' / 'point_cloud.ply', splat)
    put(tmp_path / 'shapenet_split' / 'train.txt', b'03001627-aa.ply\n02691156-cc.ply\n03001627-lost.ply\n')
    put(tmp_path / 'shapenet_split' / 'test.txt', b'03001627-bb.ply\n')
    train = build('ShapeSplats', root=tmp_path, split='train')
    assert train.classes == ['airplane', 'chair'] and train.absent == ['03001627-lost']
    assert [(item['uid'], item['category']) for item in train] == [
        ('03001627-aa', 'chair'), ('02691156-cc', 'airplane')]
    assert uids(build('ShapeSplats', root=tmp_path)) == ['03001627-bb']
    assert len(build('ShapeSplats', root=tmp_path, split='all')) == 3
    assert '1 absent' in repr(train)
    (tmp_path / 'shapenet_split' / 'test.txt').unlink()
    assert len(build('ShapeSplats', root=tmp_path, split='all')) == 3
    for split in ('test', 'train'):  # train is without the test objects
        with pytest.raises(FileNotFoundError, match=r"lacks test\.txt.* or choose split='all'"):
            build('ShapeSplats', root=tmp_path, split=split)


def test_a_model_of_two_synsets_is_two_objects_of_one_part(tmp_path, splat):
    """The published train list has the test objects in it, and models of two synsets."""
    models = [f'm{number}' for number in range(30)]
    names = [f'{synset}-{model}' for model in models for synset in ('03001627', '04379243')]
    pack(tmp_path / 'splats.zip', {f'shapesplat_ply/{name}.ply': splat for name in names})
    for split, listed in (('train', names), ('test', names[6:9])):
        put(tmp_path / 'shapenet_split' / f'{split}.txt', '\n'.join(f'{name}.ply' for name in listed).encode())
    parts = {split: [entry.uid for entry in build('ShapeSplats', root=tmp_path, split=split).entries]
             for split in ('all', 'train', 'fit', 'val', 'test')}
    assert parts['all'] == sorted(names) and parts['test'] == names[6:9]
    assert parts['train'] == names[:6] + names[10:]  # without the twin of the last test object, too
    val = [model for model in models if split_of_uid(model) == 'val' and model not in ('m3', 'm4')]
    assert parts['val'] == [name for name in parts['train'] if name.partition('-')[2] in val] and val
    assert sorted(parts['fit'] + parts['val']) == sorted(parts['train'])


@pytest.fixture
def lvis(tmp_path):
    """The three lists of the same objects; that of Uni3D and ULIP-2 name fewer."""
    folder = tmp_path / 'lists'
    folder.mkdir()
    category = {uid: ('mug', 'airplane', 'hat, felt')[i % 3] for i, uid in enumerate(UIDS)}
    rows = [dict(uid=uid, category=name, group='000-000', data_path=f'Objaverse/000-000/{uid}.npy')
            for uid, name in category.items()]
    (folder / 'openshape.json').write_text(json.dumps(rows))
    labels = sorted(set(category.values()))
    (folder / 'lvis_testset.txt').write_text(''.join(
        f'{labels.index(category[uid])},{category[uid]},{uid},/000-000/{uid}.npy\n' for uid in UIDS[:38]))
    (folder / 'objaverse_lvis_metadata.json').write_text(json.dumps(dict(
        value_to_key_mapping=dict(list(category.items())[:39]), all_keys=labels)))
    (folder / 'lvis.json').write_text(json.dumps({uid: f'000-000/{uid}.npy' for uid in UIDS[:37]}))
    return folder


def test_the_lists_of_objaverse_lvis_agree(lvis):
    openshape, uni3d, ulip = (read_lvis_list(lvis / name) for name in (
        'openshape.json', 'lvis_testset.txt', 'objaverse_lvis_metadata.json'))
    assert [len(rows) for rows in (openshape, uni3d, ulip)] == [40, 38, 39]
    assert [row[:2] for row in uni3d] == [row[:2] for row in openshape[:38]] and uni3d[2][1] == 'hat, felt'
    assert [row[:2] for row in ulip] == [row[:2] for row in openshape[:39]]
    assert ulip[36][2] == f'000-000/{UIDS[36]}.npy' and ulip[38][2] == ''
    with pytest.raises(ValueError, match=r'only the files in lvis\.json'):
        read_lvis_list(lvis / 'lvis.json')
    (lvis / 'bad.txt').write_text('3,mug\n')
    with pytest.raises(ValueError, match=r"line 1 is '3,mug'"):
        read_lvis_list(lvis / 'bad.txt')


def test_the_few_shot_split_is_that_of_the_documentation(root):
    """The rule by another way, and the quoted hash of a list."""
    uids = [f'object-{number}' for number in range(1000)]
    tenths = [int(hashlib.sha256(uid.encode()).hexdigest()[:16], 16) % 10 for uid in uids]
    expected = [('test', 'test', 'val', *['train'] * 7)[tenth] for tenth in tenths]
    assert [split_of_uid(uid) for uid in uids] == expected
    counts = {split: expected.count(split) for split in ('train', 'val', 'test')}
    digest = hash_of_uids(uid for uid in reversed(uids) if split_of_uid(uid) == 'test')
    page = (root / 'docs' / 'datasets.md').read_text(encoding='utf-8')
    assert f"{counts['train']} / {counts['val']} / {counts['test']}" in page and digest in page


def test_objaverse_splats_with_labels_captions_and_quality(tmp_path, lvis, splat):
    root = tmp_path / 'objaverse'
    here = UIDS[:20]
    pack(root / '000-000.zip', {f'000-000/{uid}/ckpts/point_cloud_15000.ply': splat for uid in here[:12]})
    for uid in here[12:]:
        put(root / '000-001' / uid / 'ckpts' / 'point_cloud_15000.ply', splat)
    lines = ['path,object_name,psnr,lpips,num_GS,caption']
    lines += [f'glbs/000-000/{uid}.glb,{uid},{30 + i / 4},{0.0999 - i / 400},50000,"a thing, number {i}"'
              for i, uid in enumerate(UIDS[:25])]
    lines.append(f'glbs/000-000/{UIDS[25]}.glb,{UIDS[25]},,,0,')
    (root / 'completed_3dgs_metadata.csv').write_text('\n'.join(lines))
    everything = build('ObjaverseSplats', root=root, split='all')
    assert [entry.uid for entry in everything.entries] == here and len(everything.absent) == 6
    item = everything[3]
    assert item['caption'] == 'a thing, number 3' and 'label' not in item and everything.classes == []
    good = build('ObjaverseSplats', root=root, split='all', min_psnr=32, max_lpips=0.06, min_gaussians=50000)
    assert [entry.uid for entry in good.entries] == here[16:] and good.absent == UIDS[20:25]
    labelled = build('ObjaverseSplats', root=root, split='all', labels=lvis / 'openshape.json')
    assert labelled.classes == ['airplane', 'hat, felt', 'mug'] and len(labelled) == 20 and len(labelled.absent) == 20
    assert (labelled[1]['label'], labelled[1]['caption']) == (0, 'a airplane')
    parts = [{entry.uid for entry in build('ObjaverseSplats', root=root, split=split).entries}
             for split in ('train', 'val', 'test')]
    assert set.union(*parts) == set(here) and sum(map(len, parts)) == 20
    assert all(split_of_uid(uid) == split for split, part in zip(('train', 'val', 'test'), parts) for uid in part)
    (root / 'completed_3dgs_metadata.csv').unlink()
    with pytest.raises(FileNotFoundError, match=r'lacks completed_3dgs_metadata\.csv'):
        build('ObjaverseSplats', root=root, min_psnr=32)


def test_gaussianverse_in_folders_and_archives(tmp_path, splat):
    root, keys = tmp_path / 'verse', [f'1923/96116{i:02d}' for i in range(6)]
    for key in keys[:3]:
        put(root / key / 'point_cloud.ply', splat)
    put(tmp_path / 'point_cloud.ply', splat)
    (root / '1923').mkdir(exist_ok=True)
    with tarfile.open(root / f'{keys[3]}.tar.gz', 'w:gz') as archive:
        archive.add(tmp_path / 'point_cloud.ply', '9611603/point_cloud.ply')
    (root / 'aesthetic_list.json').write_text(json.dumps({uid: f'{key}.tar.gz' for uid, key in zip(UIDS, keys)}))
    labels = tmp_path / 'labels' / 'object_to_class.json'
    put(labels, json.dumps({keys[0]: 1, keys[1]: -1, keys[2]: 0, keys[3]: 1, keys[4]: 0, keys[5]: 0}).encode())
    (labels.parent / 'cluster_summary.txt').write_text(
        'x\nCluster   0  (786 objects) Shoes\n  a\nCluster   1  (1,872 objects) Aircraft \n')
    plain = build('GaussianVerse', root=root, split='all')
    assert uids(plain) == UIDS[:4] and plain.absent == UIDS[4:6] and plain.classes == []
    assert torch.equal(plain[0]['gaussians'].means, plain[3]['gaussians'].means)
    labelled = build('GaussianVerse', root=root, split='all', labels=labels)
    assert labelled.classes == ['shoes', 'aircraft']
    assert [(item['uid'], item['category'], item['label']) for item in labelled] == [
        (UIDS[0], 'aircraft', 1), (UIDS[2], 'shoes', 0), (UIDS[3], 'aircraft', 1)]


def unigs_object(cloud, **content):
    parts = [cloud.means, cloud.sh[:, 0], cloud.opacity_logits[:, None], cloud.log_scales, cloud.quats]
    return {'3dgs': torch.cat(parts, 1).numpy(), 'img': '/author/img', **content}


def test_unigs_objects(tmp_path, lvis, random_cloud):
    root, cloud = tmp_path / 'unigs', random_cloud(30)
    (root / 'objects').mkdir(parents=True)
    for i, uid in enumerate(UIDS[:4]):
        prompts = dict(human_prompt=['a red mug', 'mug']) if i else dict(machine_prompt='a cup')
        torch.save(unigs_object(cloud, name=uid, label='mug', **prompts), root / 'objects' / f'{uid}.pkl')
    paths = [f'/home/author/objects/{uid}.pkl' for uid in UIDS[:5]]
    (root / 'file_paths.json').write_text(json.dumps(dict(original=dict(train=paths[:2], test=paths[2:], val=[]))))
    train = build('UniGSObjaverse', root=root, split='train', up='y')
    assert [item['captions'] for item in train] == [['a cup'], ['a red mug', 'mug']]
    found = train[0]['gaussians']
    for name, value in TameGaussians()(dict(gaussians=cloud))['gaussians'].fields():
        assert torch.allclose(getattr(found, name), value, atol=1e-6), name
    test = build('UniGSObjaverse', root=root, labels=lvis / 'openshape.json')
    assert [(item['uid'], item['category']) for item in test] == [(UIDS[2], 'hat, felt'), (UIDS[3], 'mug')]
    assert test.absent == [UIDS[4]]


def test_an_object_of_unigs_abo_has_the_class_of_its_folder(tmp_path, random_cloud):
    cloud = random_cloud(30)
    (tmp_path / 'COFFEE_TABLE').mkdir()
    torch.save(unigs_object(cloud, human_prompt=['a low table']), tmp_path / 'COFFEE_TABLE' / 'B07.pkl')
    paths = ['/home/author/COFFEE_TABLE/B07.pkl', '/home/author/MUG/B08.pkl']
    (tmp_path / 'file_paths.json').write_text(json.dumps(dict(original=dict(train=[], test=paths, val=[]))))
    dataset = build('UniGSABO', root=tmp_path, up='y')
    assert (len(dataset), dataset.classes, dataset.absent) == (1, ['COFFEE TABLE'], ['B08'])
    item = dataset[0]
    assert (item['uid'], item['label'], item['captions']) == ('B07', 0, ['a COFFEE TABLE'])
    assert torch.allclose(item['gaussians'].means, cloud.means, atol=1e-6)


def test_unigs_runs_no_code(tmp_path, random_cloud):
    class Hostile:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",)
    (tmp_path / 'mug').mkdir()
    torch.save(unigs_object(random_cloud(5), extra=Hostile()), tmp_path / 'mug' / 'x.pkl')
    (tmp_path / 'mug' / 'y.pkl').write_bytes(pickle.dumps({'3dgs': np.zeros((4, 13))}))
    dataset = build('UniGSABO', root=tmp_path, split='all')
    assert dataset.classes == ['mug']
    with pytest.raises(ValueError, match=r'mug/x\.pkl: holds \w+\.eval, which could run code'):
        dataset[0]
    with pytest.raises(ValueError, match=r'mug/y\.pkl: expected a dict whose 3dgs is a table of 14 columns'):
        dataset[1]
    assert not (tmp_path / 'ran').exists()


def test_what_a_half_downloaded_set_lacks_is_named(tmp_path, splat):
    put(tmp_path / 'chair.zip.part', b'PK')
    with pytest.raises(ValueError, match=r'was found; chair\.zip\.part is an unfinished download; continue it'):
        build('ModelNetSplats', root=tmp_path)
    put(tmp_path / 'a' / 'chair.tar.gz', b'x')
    with pytest.raises(ValueError, match=r'chair\.tar\.gz and other \.tar\.gz archives cannot be read at random'):
        build('ModelNetSplats', root=tmp_path / 'a')
    for kind, file in (('UniGSABO', 'file_paths.json'), ('GaussianVerse', 'aesthetic_list.json')):
        with pytest.raises(FileNotFoundError, match=rf'{file} does not exist, .*; download it, docs'):
            build(kind, root=tmp_path)
    put(tmp_path / 'b' / 'chair' / 'test' / 'chair_0001' / 'point_cloud.ply', splat[:len(splat) // 2])
    with pytest.raises(ValueError, match=rf'{tmp_path}/b: chair/test/chair_0001/point_cloud\.ply: .* truncated'):
        build('ModelNetSplats', root=tmp_path / 'b')[0]


def test_tables_that_are_no_text_are_named(tmp_path, splat):
    put(tmp_path / '000-000' / UIDS[0] / 'ckpts' / 'point_cloud_15000.ply', splat)
    put(tmp_path / '03001627-aa.ply', splat)
    for kind, file in (('ObjaverseSplats', 'completed_3dgs_metadata.csv'), ('ShapeSplats', 'test.txt')):
        put(tmp_path / file, b'\xff\xfe\0')
        with pytest.raises(ValueError, match=rf'{file}: not a text in UTF-8 \(invalid start byte at byte 0\)'):
            build(kind, root=tmp_path)
    put(tmp_path / 'completed_3dgs_metadata.csv', f'path,object_name,psnr,lpips,num_GS,caption\nx,{UIDS[0]}\n'.encode())
    assert len(build('ObjaverseSplats', root=tmp_path, split='all')) == 1
    with pytest.raises(ValueError, match="no object of split='all'"):  # a row without its quality
        build('ObjaverseSplats', root=tmp_path, split='all', min_psnr=1)


def test_attributes_of_any_fitter_are_clamped(random_cloud):
    cloud = random_cloud(50)
    wild = cloud.replace(log_scales=cloud.log_scales.clone(), opacity_logits=cloud.opacity_logits.clone(),
                         quats=cloud.quats * 2)
    wild.log_scales[0], wild.log_scales[1], wild.opacity_logits[2] = -30, 8, 80
    tamed = TameGaussians()(dict(gaussians=wild))['gaussians']
    radius = (wild.means - wild.means.mean(0)).norm(dim=-1).max()
    assert torch.allclose(tamed.scales[0], 1e-4 * radius) and torch.allclose(tamed.scales[1], radius)
    assert float(tamed.opacities[2]) == pytest.approx(0.999, abs=1e-5)
    assert torch.equal(tamed.log_scales[3:], cloud.log_scales[3:])
    assert torch.allclose(tamed.quats.norm(dim=-1), torch.ones(50)) and torch.equal(tamed.means, wild.means)
    one = TameGaussians()(dict(gaussians=cloud[0]))['gaussians']
    assert torch.equal(one.log_scales, cloud[0].log_scales)
    for wrong in (dict(min_scale=0), dict(min_scale=2), dict(max_opacity=1)):
        with pytest.raises(ValueError, match='expected'):
            TameGaussians(**wrong)


def test_real_splats_go_from_a_zip_to_embeddings_and_an_accuracy(tmp_path, splats):
    """The path of a user: an inferencer on the objects of a set, and the config of a test run."""
    files = {'chair': 'train_1000_sh3.ply', 'lamp': 'fruit_drops_sh3.ply'}
    root = tmp_path / 'modelnet'
    for name, file in files.items():
        pack(root / f'{name}.zip', {f'{name}/test/{name}_0001/point_cloud.ply': (splats / file).read_bytes()})
    dataset = build('ModelNetSplats', root=root)
    clipgs = CLIPGSInferencer('clipgs_toy')
    embeddings = clipgs.embed_gaussians([item['gaussians'] for item in dataset])
    up = up_matrix('z', 'y')
    direct = clipgs.embed_gaussians([TameGaussians()(dict(gaussians=read_gaussians(splats / file).transform(up)))[
        'gaussians'] for file in files.values()])
    assert torch.allclose(embeddings, direct, atol=1e-5) and embeddings.shape[0] == 2

    cfg = get_config('clipgs_pointbert-nano_15e_public-set', options=dict(
        data_root=str(root), dataset_type='clipgs_plugin.ModelNetSplats', num_gaussians=500))
    with DefaultScope.overwrite_default_scope('clipgs_plugin'):
        loader = Runner.build_dataloader({**cfg.test_dataloader, 'num_workers': 0, 'persistent_workers': False})
        evaluator = Evaluator(cfg.test_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        assert batch['data_samples']['uid'] == ['chair_0001', 'lamp_0001']
        assert batch['inputs'].lengths.tolist() == [500, 500]
        evaluator.process(clipgs.model.test_step(batch), batch)
    assert evaluator.evaluate(2)['zero_shot/top1'] in (0, 50, 100)
