import json
import re
import shutil
import sys

import numpy as np
import pytest
from conftest import random_cloud

from clipgs_plugin import write_gaussians
from clipgs_plugin.generation import Progress, detect_source
from clipgs_plugin.tools import make_triplets
from clipgs_plugin.tools.make_triplets import cli, main
from clipgs_plugin.toy_world.writing import export_files
from clipgs_plugin.triplets import ShardReader, ShardWriter

OFF = 'OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n'
PLY = 'ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n'


@pytest.fixture
def config(tmp_path):
    """Path of a config with few, small views."""
    path = tmp_path / 'small.py'
    path.write_text('generation = dict(views=dict(size=24, num_views=3, num_test=2),\n'
                    '                  storage=dict(objects_per_shard=2), fit=dict(num_gaussians=100, iterations=5))\n')
    return str(path)


def test_toys_become_triplets_and_a_second_run_makes_none(tmp_path, config, capsys):
    export_files(tmp_path / 'files', 3, num_gaussians=200)
    arguments = [str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0', '--json']
    assert main(arguments) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts['listed'], counts['made'], counts['failed'], counts['there']) == (3, 3, 0, 0)
    reader = ShardReader(tmp_path / 'out')
    assert len(reader) == 3 and reader.read_views(0).shape == (3, 24, 24, 3)
    assert sorted(reader.read_record(i)['captions'][0]['text'] for i in range(3)) == [
        'orange ringed car', 'red checkered chair', 'yellow striped mug']
    assert main(arguments) == 0
    counts = json.loads(capsys.readouterr().out)
    assert (counts['made'], counts['there']) == (0, 3)


def test_failures_are_counted_by_reason(tmp_path, config, capsys):
    (tmp_path / 'files').mkdir()
    write_gaussians(random_cloud(20), tmp_path / 'files' / 'mug.ply')
    (tmp_path / 'files' / 'broken.splat').write_bytes(b'123')
    arguments = [str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0']
    assert main([*arguments, '--source', 'splats']) == 0
    out = capsys.readouterr().out
    assert '1 of 2 objects made' in out and '1 failed' in out and '1 x ValueError' in out and 'failed.jsonl' in out
    (tmp_path / 'files' / 'mug.ply').unlink()
    assert main([arguments[0], str(tmp_path / 'other'), *arguments[2:]]) == 1  # no object was made


def test_unfitted_points_are_reported(tmp_path, config, capsys):
    (tmp_path / 'files').mkdir()
    for name in ('a', 'b'):
        points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
        np.save(tmp_path / 'files' / f'{name}.npy', points)
    assert main([str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    assert 'not fitted: 2 (oriented discs of points)\n' in capsys.readouterr().out


def test_unfitted_splats_are_reported(tmp_path, config, capsys):
    write_gaussians(random_cloud(20), tmp_path / 'mug.ply')
    assert main([str(tmp_path / 'mug.ply'), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    assert 'not fitted: 1 (splats kept as they came)\n' in capsys.readouterr().out


def test_a_log_gets_progress_lines_and_warnings_are_counted(tmp_path, config, capsys, monkeypatch):
    (tmp_path / 'files').mkdir()
    (tmp_path / 'files' / 'box.obj').write_text('mtllib absent.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n'
                                                'f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n')
    monkeypatch.setattr(make_triplets, 'LOG_EVERY', 0.0)
    assert main([str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    printed = capsys.readouterr()
    assert re.search(r'^1 of 1, \d+\.\d\d/s, 0 failed, 0 min left$', printed.err, re.M)
    assert '1 made with warnings: ' in printed.out and 'timings.jsonl' in printed.out


def test_other_files_of_a_folder_and_its_splits_are_reported(tmp_path, config, capsys):
    (tmp_path / 'test').mkdir()
    write_gaussians(random_cloud(20, sh_degree=1), tmp_path / 'test' / 'mug.ply')
    write_gaussians(random_cloud(20), tmp_path / 'test' / 'pot.spz')
    (tmp_path / 'test' / 'box.off').write_text(OFF)
    assert main([str(tmp_path / 'test'), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    printed = capsys.readouterr()
    assert 'left out: files of source mesh (1); --source takes them instead' in printed.err
    assert '(SplatSource, y up)' in printed.err
    assert 'not fitted: 1 (splats kept as they came)' in printed.out
    assert 'not fitted: 1 (splats cut to the SH degree' in printed.out and 'splits: 2 train' in printed.out
    (tmp_path / 'files').mkdir()
    with pytest.raises(ValueError, match='out is a triplet dataset'):
        main([str(tmp_path / 'out'), str(tmp_path / 'again')])
    (tmp_path / 'test').rename(tmp_path / 'files' / 'test')
    assert main([str(tmp_path / 'files'), str(tmp_path / 'other'), '--config', config, '--workers', '0', '--source',
                 'mesh']) == 0
    assert 'splits: 1 test; no train split' in capsys.readouterr().out


def test_paths_of_a_manifest_are_relative_to_it(tmp_path, config):
    for name in ('mug', 'chair'):
        (tmp_path / 'files' / name).mkdir(parents=True)
        write_gaussians(random_cloud(20), tmp_path / 'files' / name / 'model.ply')
    manifest = tmp_path / 'tables' / 'all.csv'
    manifest.parent.mkdir()
    manifest.write_text('uid,path\na,../files/mug/model.ply\nb,../files/chair/model.ply\n')
    assert main([str(manifest), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    reader = ShardReader(tmp_path / 'out')
    assert [reader.read_record(i)['source']['file'] for i in range(2)] == ['../files/mug/model.ply',
                                                                          '../files/chair/model.ply']


def test_options_override_the_config(tmp_path, config, capsys):
    (tmp_path / 'box.off').write_text(OFF)
    out = tmp_path / 'out'
    assert main([str(tmp_path / 'box.off'), str(out), '--config', config, '--preset', 'draft', '--up', '-y', '--seed',
                 '7', '--workers', '0']) == 0
    card = json.loads((out / 'dataset.json').read_text())
    assert card['render']['size'] == 64 and card['render']['rule']['num_views'] == 3
    assert card['generator']['fit']['num_gaussians'] == 2000 and card['generator']['seed'] == 7
    assert card['generator']['source']['type'] == 'MeshSource' and card['generator']['source']['up'] == '-y'


def test_the_parts_of_a_job_array_are_joined(tmp_path, config, capsys):
    export_files(tmp_path / 'files', 3, num_gaussians=50)
    (tmp_path / 'files' / 'broken.splat').write_bytes(b'123')
    arguments = [str(tmp_path / 'files'), str(tmp_path / 'out')]
    for index, listed in enumerate([1, 1, 1, 1, 0]):
        status = main([*arguments, '--config', config, '--workers', '0', '--num-shards', '5', '--shard-index',
                       str(index)])
        out, folder = capsys.readouterr().out, tmp_path / 'out' / 'parts' / f'{index:05d}-of-00005'
        assert f'of {listed} objects made' in out and f'before: {folder}\n' in out
        bad = f'{folder}/failed.jsonl; retry' in out
        assert bad == bool((folder / 'failed.jsonl').read_text()) and status == bad
    shutil.rmtree(tmp_path / 'files')  # a join does not need them
    assert main([*arguments, '--join', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['objects'] == 3 and len(ShardReader(tmp_path / 'out')) == 3


@pytest.mark.parametrize('device, cores, workers', [('cpu', 32, 32), ('cuda', 32, 4), ('cuda:1', 2, 2)])
def test_the_default_number_of_workers_is_small_on_a_gpu(tmp_path, config, monkeypatch, device, cores, workers):
    export_files(tmp_path / 'files', 1, num_gaussians=50)
    taken = []

    def generate(source, root, out, settings, execution, *args):
        taken.append(execution.workers)
        return Progress(0)
    monkeypatch.setattr('clipgs_plugin.generation.generate', generate)
    monkeypatch.setattr('clipgs_plugin.tools.make_triplets._cores', lambda: cores)
    arguments = [str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--device', device]
    assert main(arguments) == 0 and main([*arguments, '--workers', '7']) == 0
    assert taken == [workers, 7]


@pytest.mark.parametrize('wrong', [['--workers', '-1'], ['--limit', '0'], ['--batch-size', '0'], ['--time-limit', '-1'],
                                   ['--num-shards', '2', '--shard-index', '2'], ['--engine', 'spark']])
def test_numbers_out_of_range_are_usage_errors(tmp_path, wrong, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), str(tmp_path / 'out'), *wrong])
    assert stopped.value.code == 2 and f'error: {wrong[-2]}' in capsys.readouterr().err.replace('argument ', '')


def test_the_device_option_is_used(tmp_path, config, monkeypatch):
    export_files(tmp_path / 'files', 1, num_gaussians=50)
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(ValueError, match="device='cuda': torch sees no GPU"):
        main([str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--device', 'cuda'])


def test_a_missing_package_is_one_line(tmp_path, config, monkeypatch, capsys):
    export_files(tmp_path / 'files', 1, num_gaussians=50)
    monkeypatch.setitem(sys.modules, 'ray', None)
    monkeypatch.setattr(sys, 'argv', ['make_triplets', str(tmp_path / 'files'), str(tmp_path / 'out'), '--config',
                                      config, '--engine', 'ray'])
    with pytest.raises(SystemExit) as stopped:
        cli()
    assert stopped.value.code == 1
    error = r'^error: work on a Ray cluster needs Ray, of the extra cluster; pip install ray$'
    assert re.search(error, capsys.readouterr().err, re.M)
    assert not (tmp_path / 'out').exists()


def test_a_config_without_generation_is_refused(tmp_path):
    (tmp_path / 'other.py').write_text('model = dict()')
    with pytest.raises(ValueError, match=r'other\.py has no generation=dict'):
        main([str(tmp_path), str(tmp_path / 'out'), '--config', str(tmp_path / 'other.py')])
    with pytest.raises(FileNotFoundError, match=r'config defualt does not exist.* draft, default, paper'):
        main([str(tmp_path), str(tmp_path / 'out'), '--config', 'defualt'])


@pytest.mark.parametrize('name, content, expected', [
    ('a.off', OFF, 'mesh'), ('a.ply', PLY, 'points'), ('a.xyz', '0 0 0\n', 'points'), ('a.csv', 'uid,path\n', None),
    ('scene/transforms.json', '{}', 'nerf'), ('scene/sparse/0/cameras.txt', '', 'colmap')])
def test_the_source_is_detected_from_the_files(tmp_path, name, content, expected):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content)
    if expected is None:  # a table is a manifest only if it is named itself
        assert detect_source(tmp_path / name) == 'manifest'
        with pytest.raises(ValueError, match='holds no file that identifies a source'):
            detect_source(tmp_path)
    else:
        assert detect_source(tmp_path) == expected


def test_splats_and_points_are_distinguished_by_the_header(tmp_path):
    write_gaussians(random_cloud(3), tmp_path / 'a.ply')
    assert detect_source(tmp_path) == detect_source(tmp_path / 'a.ply') == 'splats'
    with pytest.raises(FileNotFoundError, match='absent does not exist'):
        detect_source(tmp_path / 'absent')


@pytest.mark.parametrize('source, out', [('files', 'files'), ('files', 'files/out'), ('files/a', 'files'),
                                         ('files/a/mug.ply', 'files'), ('files', 'files/a/../out')])
def test_source_and_dataset_in_each_other_are_a_usage_error(tmp_path, capsys, source, out):
    (tmp_path / 'files' / 'a').mkdir(parents=True)
    write_gaussians(random_cloud(20), tmp_path / 'files' / 'a' / 'mug.ply')
    with pytest.raises(SystemExit, match='2'):
        main([str(tmp_path / source), str(tmp_path / out)])
    assert 'lie in each other' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'files').iterdir()] == ['a']


def test_a_second_run_into_a_folder_is_refused_at_its_start(tmp_path, config):
    (tmp_path / 'files').mkdir()
    write_gaussians(random_cloud(20), tmp_path / 'files' / 'mug.ply')
    arguments = [str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0']
    with ShardWriter(tmp_path / 'out'), pytest.raises(OSError, match='out is in use by'):
        main(arguments)
    assert not (tmp_path / 'out' / '.lock').exists()


@pytest.mark.parametrize('out', ['file', 'file/out', 'a' * 300])
def test_a_dataset_that_cannot_be_written_is_an_error_of_the_system(tmp_path, config, out):
    (tmp_path / 'files').mkdir()
    (tmp_path / 'file').write_text('a file')
    write_gaussians(random_cloud(20), tmp_path / 'files' / 'mug.ply')
    with pytest.raises(OSError, match=out[:100]):
        main([str(tmp_path / 'files'), str(tmp_path / out), '--config', config, '--workers', '0'])


def test_files_that_no_source_reads_are_counted_by_ending(tmp_path, config, capsys):
    (tmp_path / 'files').mkdir()
    (tmp_path / 'files' / 'box.off').write_text(OFF)
    for name in ('a.fbx', 'b.FBX', 'c.dae', 'notes.md', 'wood.png'):
        (tmp_path / 'files' / name).write_bytes(b'x')
    assert main([str(tmp_path / 'files'), str(tmp_path / 'out'), '--config', config, '--workers', '0']) == 0
    assert 'not read: 2 .fbx, 1 .dae; convert such files' in capsys.readouterr().err
    (tmp_path / 'files' / 'box.off').unlink()
    with pytest.raises(ValueError, match=r'no file that identifies a source.*or convert its files of \.fbx, \.dae'):
        main([str(tmp_path / 'files'), str(tmp_path / 'out')])
