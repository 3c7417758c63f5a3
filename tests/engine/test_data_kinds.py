"""Models are tested on labelled files and on triplets alike."""
import pytest
from conftest import random_cloud

from clipgs_plugin import engine, write_gaussians
from clipgs_plugin.registry import DATASETS
from clipgs_plugin.toy_world.writing import write_world

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """A triplet dataset whose objects are all of the training split."""
    root = tmp_path_factory.mktemp('world')
    write_world(root, num_train=3, num_val=0, num_test=2, num_views=1, track=iter)
    return root


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Labelled files."""
    root = tmp_path_factory.mktemp('files')
    for i, name in enumerate(('apple', 'chair')):
        (root / 'test' / name).mkdir(parents=True)
        write_gaussians(random_cloud(40 + i, seed=i), root / 'test' / name / 'a.ply')
    return root


def test_a_published_model_reads_the_test_split_of_triplets(world):
    cfg = engine.load_config('uni3d-b', options={'data_root': str(world), 'num_points': 32})
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert engine.follow_test_data(cfg) == f'{world} is a triplet dataset; its split test is used'
    engine.check_data(cfg, ('test',))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert cfg.test_dataloader.dataset.pipeline == pipeline and len(dataset) == 2
    item = dataset[0]
    assert len(item['inputs']) == 32 and item['data_samples']['category'] in dataset.classes
    assert engine.follow_test_data(cfg) == ''  # the right kind now


def test_a_model_of_triplets_reads_labelled_files(folder):
    cfg = engine.load_config('clipgs_toy', options={'data_root': str(folder)})
    assert engine.follow_test_data(cfg).startswith(f'{folder} has labelled files')
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    assert dataset.classes == ('apple', 'chair') or list(dataset.classes) == ['apple', 'chair']
    assert [dataset[i]['data_samples']['category'] for i in range(2)] == ['apple', 'chair']
    assert [each.type.rpartition('.')[2] for each in cfg.test_evaluator] == ['ZeroShotAccuracy']


@pytest.mark.parametrize('name', ['uni3d-b', 'clipgs_toy'])
def test_other_folders_stay_as_they_are(name, tmp_path, world, folder):
    for root in (tmp_path, world if name == 'clipgs_toy' else folder):
        cfg = engine.load_config(name, options={'data_root': str(root)})
        before = cfg.to_dict()
        assert engine.follow_test_data(cfg) == '' and cfg.to_dict() == before
