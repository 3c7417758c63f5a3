"""Tables of experiments: their cells, the files of these, and what they amount to."""
import copy
import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine import Config

from clipgs_plugin import get_config
from clipgs_plugin.engine import cells, tables
from clipgs_plugin.engine.table_spec import Row, Table, list_tables, load_table
from clipgs_plugin.engine.tables import Runs, difference, run_cells, save_summary
from clipgs_plugin.io.lock import folder_lock
from clipgs_plugin.registry import DATASETS, MODELS

CONFIG = 'clipgs_pointbert-nano_15e_toy-world'
TWO = Table('two', 'Two rows.', (Row('plain', options={'model.image_loss': None}), Row('voting')),
            {'zero-shot': 'zero_shot/top1'}, CONFIG, worlds={'main': dict(num_train=60, num_test=60)},
            compare=(('plain', 'voting'),))


def outcome(right, uids='abc'):
    name = 'zero_shot/top1'
    return dict(metrics={name: 100 * right.count('1') / len(right)}, outcomes={name: right}, objects={name: uids},
                seconds=1.0)


@pytest.fixture(scope='module')
def load():
    """``get_config``, which reads each config once."""
    read = functools.cache(get_config)

    def load(name, options):
        cfg = copy.deepcopy(read(name))
        cfg.merge_from_dict(options)
        return cfg
    return load


@pytest.fixture
def made(monkeypatch, load):
    """Calls of cells, whose results are those of a row and seed."""
    calls = []
    monkeypatch.setattr(cells, 'last_epoch_config', lambda name, work_dir, options: load(name, options))

    def run_cell(cfg, table, row):
        calls.append((row.title, cfg.randomness.seed))
        return outcome('1101' if row.title == 'voting' else '1100')
    monkeypatch.setattr(cells, 'run_cell', run_cell)
    return calls


def runs(folder, table=TWO, seeds=2, **settings):
    return Runs(table, folder / 'out', seeds, worlds=folder / 'worlds', **settings)


def prepare(folder, world):
    assert not folder.exists()
    folder.mkdir(parents=True)
    (folder / 'settings.json').write_text(json.dumps(world))


@pytest.mark.parametrize('name', list_tables())
def test_the_rows_of_shipped_tables_build(name, load):
    table = load_table(name)
    experiments = {repr((row.config, sorted(row.options.items()), row.start)) for row in table.rows}
    assert len(experiments) == len(table.rows)
    for part in (*table.rows, *table.pretrainings.values()):
        cfg = load(part.config or table.config, {**table.options, **part.options})
        assert part.world is None or 'data_root' in cfg
        if getattr(part, 'trained', True):
            with torch.device('meta'):
                model = MODELS.build(cfg.model)
            assert model.encoder.embed_dim == cfg.model.encoder.embed_dim or 'num_classes' in cfg.model
            assert DATASETS.get(cfg.train_dataloader.dataset.type).__name__ in (
                'TripletDataset', 'StrayViewTriplets', 'ModelNetGaussians')


@pytest.mark.parametrize('name', ['backbones', 'initialisation'])
def test_pretraining_has_other_data_than_the_rows(name, tmp_path):
    table = load_table(name)
    row = next(row for row in table.rows if row.start)
    every = runs(tmp_path, table)
    cfg = cells.cell_config(table, row, 3, every.data, tmp_path, 'file.pth')
    before = cells.cell_config(table, table.pretrainings[row.start], 0, every.data, tmp_path)
    assert cfg.model.encoder.init_cfg == dict(type='PointCloudPretrained', checkpoint='file.pth')
    assert cfg.randomness.seed == cfg.train_dataloader.dataset.seed == 3
    assert before.model.encoder.tokenizer.refine is False and 'init_cfg' not in before.model.encoder
    for part, each, split in ((cfg, 'main', 'train'), (cfg, 'main', 'test'), (before, 'pretraining', 'train')):
        dataset = part[f'{split}_dataloader'].dataset
        assert dataset.root == every.world_folder(table.worlds[each]) and not dataset.hold_out
    assert table.worlds['main']['seed'] != table.worlds['pretraining']['seed']


def test_cells_are_run_once_and_their_data_made_once(tmp_path, made, capsys):
    run_cells(runs(tmp_path), prepare)
    assert made == [('plain', 0), ('voting', 0), ('plain', 1), ('voting', 1)]
    assert 'voting, seed 1: zero-shot 75.0 (' in capsys.readouterr().err
    run_cells(runs(tmp_path, seeds=3), prepare)
    assert made[4:] == [('plain', 2), ('voting', 2)]
    assert 'voting, seed 1: zero-shot 75.0 (0 s, read)' in capsys.readouterr().err


def test_a_moved_folder_is_read_and_other_settings_are_not(tmp_path, made):
    run_cells(runs(tmp_path), prepare)
    moved = tmp_path / 'elsewhere'
    shutil.move(tmp_path / 'out', moved / 'out')
    assert set(runs(moved).results()) == {'plain', 'voting'}
    assert not runs(moved, options={'train_cfg.max_epochs': 1}).results()
    assert not runs(moved, data_root='data').results()
    other = {'worlds': {'main': dict(num_train=60, num_test=61)}, 'probe': dict(split='train'),
             'tests': {'turned': {'test_dataloader.batch_size': 1}}, 'options': {'optim_wrapper.optimizer.lr': 1e-4}}
    for name, value in other.items():
        changed = Table(**{**vars(TWO), name: value})
        assert not runs(moved, changed).results(), name
    assert set(runs(moved, Table(**{**vars(TWO), 'title': 'Other words.', 'compare': ()})).results())


def test_a_pretraining_is_a_setting_of_the_rows_that_start_from_it(tmp_path):
    table = load_table('initialisation')
    row = next(row for row in table.rows if row.start)
    changed = load_table('initialisation', {'pretrainings.point_cloud.options': {'train_cfg.max_epochs': 1}})
    fresh = next(row for row in table.rows if not row.start)
    assert runs(tmp_path, table).path(row, 0) != runs(tmp_path, changed).path(row, 0)
    assert runs(tmp_path, table).path(fresh, 0) == runs(tmp_path, changed).path(fresh, 0)


def test_a_cell_takes_the_results_of_the_same_settings_in_a_table_beside_it(tmp_path, made):
    run_cells(runs(tmp_path), lambda *_: None)
    record = runs(tmp_path).path(TWO.rows[1], 1).with_suffix('') / 'metrics.json'
    record.write_text('{}')
    other = Table('other', 'Other rows.', (Row('all views'), Row('one', options={'model.image_loss.num_views': 1})),
                  TWO.metrics, CONFIG, worlds=TWO.worlds)
    beside = Runs(other, tmp_path / 'beside', 2, worlds=tmp_path / 'worlds')
    run_cells(beside, lambda *_: None)
    assert made[4:] == [('one', 0), ('one', 1)]
    first, second = runs(tmp_path).results()['voting'], beside.results()['all views']
    assert second == {seed: {**cell, 'row': 'all views'} for seed, cell in first.items()}
    places = [beside.path(other.rows[0], seed).with_suffix('') / 'metrics.json' for seed in (0, 1)]
    assert not places[0].exists() and places[1].read_text() == '{}'


def test_shipped_tables_share_cells(tmp_path):
    """Rows that are the same experiment, though tables call them otherwise."""
    same = {'attributes': 'GS tokenizer, voting', 'voting': 'voting, mean', 'orders': 'three orders, mean',
            'views': 'K = 5'}
    settings = set()
    for name, title in same.items():
        table = load_table(name)
        row, = table.select([title])
        settings.add(runs(tmp_path, table).path(row, 0).stem.rpartition('-')[2])
    assert len(settings) == 1


def test_the_weights_that_a_row_starts_from_are_its_settings(tmp_path):
    file = tmp_path / 'encoder.safetensors'
    init = dict(type='CLIPGSPretrained', checkpoint=str(file))
    table = Table(**{**vars(TWO), 'rows': (Row('further', options={'model.encoder.init_cfg': init}),), 'compare': ()})
    paths = set()
    for content in (b'first', b'second', b'first'):
        file.write_bytes(content)
        paths.add(runs(tmp_path, table).path(table.rows[0], 0))
    assert len(paths) == 2


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_shards_are_a_partition(tmp_path, made, count):
    for number in range(count):
        before = len(made)
        run_cells(runs(tmp_path, seeds=3), lambda *_: None, (number, count))
        assert len(made) - before == len(range(number, 6, count))
    assert sorted(made) == sorted((title, seed) for title in ('plain', 'voting') for seed in range(3))


def test_a_cell_that_another_process_runs_is_left_to_it(tmp_path, made, capsys):
    busy = runs(tmp_path).path(TWO.rows[0], 0).with_suffix('')
    busy.mkdir(parents=True)
    with folder_lock(busy):
        run_cells(runs(tmp_path), lambda *_: None)
    assert ('plain', 0) not in made and len(made) == 3
    assert 'plain, seed 0: another process runs it' in capsys.readouterr().err
    run_cells(runs(tmp_path), lambda *_: None)
    assert made[3:] == [('plain', 0)]


def test_repeats_change_the_settings_of_their_seed(tmp_path):
    table = Table(**{**vars(TWO), 'repeats': tuple({'train_dataloader.dataset.num_views': k} for k in (3, 4))})
    found = [cells.cell_config(table, TWO.rows[0], seed, runs(tmp_path).data, tmp_path) for seed in (0, 1)]
    assert [cfg.train_dataloader.dataset.num_views for cfg in found] == [3, 4]
    assert [cfg.randomness.seed for cfg in found] == [0, 1]
    with pytest.raises(ValueError, match='3 seeds: expected at least 1, and at most 2, the repeats of the table two'):
        runs(tmp_path, table, seeds=3)


def test_the_summary_has_means_and_differences(tmp_path, made):
    run_cells(runs(tmp_path), lambda *_: None)
    text = save_summary(runs(tmp_path, options={}))
    assert '| plain | 2 | 50.0 ± 0.0 |' in text and '| voting | 2 | 75.0 ± 0.0 |' in text
    assert '| voting − plain | +25.0 [+0.0, +75.0] |' in text
    assert (tmp_path / 'out' / 'table.md').read_text() == f'{text}\n'
    plain = json.loads((tmp_path / 'out' / 'table.json').read_text())
    assert [row['metrics'] for row in plain['rows']] == [{'zero_shot/top1': [50, 50]}, {'zero_shot/top1': [75, 75]}]
    assert plain['differences'][0]['metrics']['zero-shot']['mean'] == 25


def test_an_untrained_row_is_compared_with_every_seed(tmp_path, made):
    table = Table(**{**vars(TWO), 'rows': (Row('plain', trained=False), TWO.rows[1])})
    run_cells(runs(tmp_path, table, seeds=3), lambda *_: None)
    assert made == [('plain', 0), ('voting', 0), ('voting', 1), ('voting', 2)]
    text = save_summary(runs(tmp_path, table, seeds=3))
    assert '| plain | 1 | 50.0 |' in text and '| voting − plain | +25.0 [+0.0, +75.0] |' in text


def test_an_untrained_row_has_no_part_of_a_training_from_the_options_of_the_table(monkeypatch):
    launched = []
    monkeypatch.setattr(cells, 'check_data', lambda *_: None)
    monkeypatch.setattr(cells, 'launched', lambda cfg: launched.append(cfg) or 1 / 0)
    for row in (Row('plain'), Row('plain', trained=False)):
        with pytest.raises(ZeroDivisionError):
            cells.run_cell(Config(dict(train_cfg=dict(max_epochs=5), test_cfg={})), TWO, row)
    assert [(cfg.train_cfg, cfg.get('optim_wrapper'), cfg.test_cfg) for cfg in launched] == [
        (dict(max_epochs=5), None, {}), (None, None, {})]


def test_rows_that_need_something_are_named_and_not_run(tmp_path, made):
    giant = Row('giant', options={'train_cfg.max_epochs': 900}, needs='a thousand GPUs')
    table = Table(**{**vars(TWO), 'rows': (*TWO.rows, giant)})
    run_cells(runs(tmp_path, table), lambda *_: None)
    assert len(made) == 4
    assert '| giant | - | - |' in (text := save_summary(runs(tmp_path, table)))
    assert 'Not run: giant needs a thousand GPUs.' in text
    run_cells(runs(tmp_path, table, seeds=1, rows=('giant',)), lambda *_: None)
    assert made[4:] == [('giant', 0)] and '| giant | 1 |' in save_summary(runs(tmp_path, table))


def test_objects_are_resampled_only_if_all_cells_have_the_same():
    a, b = (dict(enumerate(outcome(each) for each in row)) for row in (('1100', '1000'), ('1111', '1101')))
    same = difference({'a': a, 'b': b}, 'a', 'b', 'zero_shot/top1')
    other = {0: b[0], 1: outcome('1101', 'other objects')}
    apart = difference({'a': a, 'b': other}, 'a', 'b', 'zero_shot/top1')
    assert same.mean == apart.mean == 50
    assert (apart.low, apart.high) == pytest.approx((50, 50)) and same.low < 50 < same.high
    one = {'a': {0: a[0]}, 'b': {0: other[1]}}
    assert difference(one, 'a', 'b', 'zero_shot/top1') is None and difference(one, 'a', 'b', 'absent') is None


def test_a_table_of_the_user_is_a_file(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = 'clipgs_plugin::ablations/attributes.py'\n_x = 3\ntitle = 'Mine.'\n"
                    f"rows = [dict(title='one', config='{CONFIG}')]\ncompare = []\n")
    table = load_table(path, {'worlds.main.num_train': 7})
    assert (table.name, table.title, [row.title for row in table.rows]) == ('mine', 'Mine.', ['one'])
    assert table.worlds['main']['num_train'] == 7 and table.metrics == load_table('attributes').metrics


@pytest.mark.parametrize('line, message', [
    ("rows = [dict(titel='a')]", r"row with unknown \['titel'\] and missing \['title'\]"),
    ("rows = [dict(title='a')]", "row 'a' has no config"),
    ("config = 'c'\nrows = [dict(title='a'), dict(title='a')]", 'two rows have the same title'),
    ("config = 'c'\nrows = [dict(title='a', start='b')]", r"start \['b'\]: expected some of \[\]"),
    ("config = 'c'\nrows = [dict(title='a', world='b')]\nworlds = dict(c={})", r"world \['b'\]: expected some of"),
    ("config = 'c'\nrows = [dict(title='a')]\ncompare = [('a', 'b')]", r"compare \['b'\]: expected some of \['a'\]"),
    ("config = 'c'\nrows = [dict(title='a')]\nseeds = 3", r"table with unknown \['seeds'\]")])
def test_a_wrong_table_is_refused(tmp_path, line, message):
    (tmp_path / 'wrong.py').write_text(f"title = 'Wrong.'\nmetrics = dict(a='b')\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / 'wrong.py')


def test_worlds_are_named_by_their_settings():
    assert cells.described(dict(seed=0, num_train=60)) == 'train_60-seed_0'
    assert Path(tables.Runs(TWO, Path('out'), 1).world_folder(TWO.worlds['main'])).name == 'test_60-train_60'
