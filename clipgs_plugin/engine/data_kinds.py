"""Kind of the data that a model is tested on: labelled splat files or a triplet dataset, whatever its config names."""
from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from clipgs_plugin.triplets.layout import SETTINGS

FOLDER, TRIPLETS, RETRIEVAL = 'GaussianFolder', 'TripletDataset', 'RetrievalRecall'
HELD_OUT = 0.1  # of the training objects of a triplet dataset without the split test, as in its configs


def follow_test_data(cfg: Config) -> str:
    """Change the test dataset of a config to the kind that lies in its folder.

    A triplet dataset is known by its ``dataset.json``, labelled splat files by the folder ``test`` (of ``data_root``).
    The pipeline stays. Files are turned from the axis ``up`` of the config, and triplets have y up. Files have no
    captions and views, so the evaluator of retrieval is left out.

    Returns:
        A sentence about the change, empty if the config named the right kind.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    kind, root = str(dataset.get('type')).rpartition('.')[2], Path(str(dataset.get('root', '')))
    if kind == FOLDER and root.name == 'test' and (root.parent / SETTINGS).is_file():
        kept = {key: dataset[key] for key in ('pipeline', 'classes') if key in dataset}
        cfg.test_dataloader.dataset = dict(type=f'clipgs_plugin.{TRIPLETS}', root=str(root.parent), split='test',
                                           hold_out=HELD_OUT, test_mode=True, **kept)
        return f'{root.parent} is a triplet dataset; its split test is used'
    if kind == TRIPLETS and not (root / SETTINGS).is_file() and (root / 'test').is_dir():
        load, *rest = dataset.pipeline
        turn = dict(type='clipgs_plugin.ChangeUp', source=cfg.get('up', 'y'), target='y')
        cfg.test_dataloader.dataset = dict(type=f'clipgs_plugin.{FOLDER}', root=str(root / 'test'), test_mode=True,
                                           pipeline=[load, turn, *rest],
                                           **{key: dataset[key] for key in ('classes',) if key in dataset})
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [each for each in evaluators if str(each.type).rpartition('.')[2] != RETRIEVAL]
        return f'{root} has labelled files; those of {root / "test"} are used, and retrieval is not measured'
    return ''
