"""The report of runs with a checkpoint: gallery, map of embeddings, student beside teacher."""
import re

import numpy as np
import pytest
import torch

from clipgs_plugin import get_config
from clipgs_plugin.apis.report import collect_report
from clipgs_plugin.registry import MODELS
from clipgs_plugin.tools import cache_features
from clipgs_plugin.toy_world.writing import write_world
from clipgs_plugin.visualization.report import render_html


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp('world')
    write_world(folder, num_train=2, num_val=0, num_test=6, seed=0, num_views=3, track=iter)
    cache_features.main([str(folder), '--teacher', 'toy-clip'])
    return folder


def run_of(folder, world, seed):
    """A work dir with the config and a checkpoint of a model that was not trained."""
    folder.mkdir()
    cfg = get_config('clipgs_pointbert-nano_15e_toy-world', {'data_root': str(world), 'randomness.seed': seed})
    torch.manual_seed(seed)
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, folder / 'best_top1.pth')
    cfg.dump(folder / 'nano.py')
    return folder


def test_a_run_has_gallery_and_map_and_two_share_their_pictures(world, tmp_path):
    runs = [run_of(tmp_path / name, world, seed) for seed, name in enumerate(('first', 'second'))]
    (runs[1] / 'nano.py').write_text((runs[1] / 'nano.py').read_text() + 'note = 1\n')  # another experiment
    one = collect_report(runs[0])
    assert one.rows[0][0] == 'zero-shot top-1 (%)' and len(one.rows) == 12 and one.columns[3] == 'chance'
    assert one.tables[0].title == 'Accuracy by class' and one.metrics is None
    found = one.maps[0]
    (method, places), *others = found.places.items()  # of UMAP, where it is installed
    assert method.startswith('PCA') and places.shape == (6, 2) and found.stars[method].shape == (len(found.classes), 2)
    assert all(name.startswith(f'{found.classes[label]}: ') for name, label in zip(found.names, found.labels))
    assert len(found.pictures) == 6 and found.pictures[0].dtype == np.uint8
    page = render_html(one)
    assert page.count('<circle') == 6 * (1 + len(others)) and not re.search(r'(?:src|href)="?http', page)

    two = collect_report(*runs)
    assert [each.title for each in two.maps] == ['first', 'second'] and not two.rows
    assert two.maps[0].pictures is two.maps[1].pictures
    assert [row.query.rpartition('– ')[2] for row in two.gallery[:4]] == ['first', 'second'] * 2
    assert np.allclose(two.maps[0].places[method], places, atol=1e-5)


def test_a_run_whose_data_are_gone_is_reported_by_its_other_results(world, tmp_path):
    run = run_of(tmp_path / 'run', tmp_path / 'gone', 0)
    with pytest.raises(FileNotFoundError, match='gone'):
        collect_report(run)
    (run / '1' / 'vis_data').mkdir(parents=True)
    (run / '1' / 'vis_data' / 'scalars.json').write_text('{"zero_shot/top1": 5.0, "step": 1}\n')
    report = collect_report(run, run_of(tmp_path / 'other', world, 1))
    assert 'The checkpoint of run was not evaluated anew' in report.missing and len(report.maps) == 1
