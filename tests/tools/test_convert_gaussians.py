import json

import pytest
import torch

from clipgs_plugin import read_gaussians, write_gaussians
from clipgs_plugin.tools.convert_gaussians import main


@pytest.fixture
def source(random_cloud, tmp_path):
    """File of a cloud of SH degree 2."""
    write_gaussians(random_cloud(300, sh_degree=2), tmp_path / 'chair.ply')
    return tmp_path / 'chair.ply'


def test_a_lossless_conversion_is_reported(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / 'copy.ply')]) == 0
    assert 'lossless' in capsys.readouterr().out
    assert (tmp_path / 'copy.ply').read_bytes() == source.read_bytes()


@pytest.mark.parametrize('suffix', ['compressed.ply', 'splat', 'spz', 'sog'])
def test_reported_errors_equal_those_of_the_file(source, tmp_path, capsys, suffix):
    target = tmp_path / f'out.{suffix}'
    assert main([str(source), str(target), '--json']) == 0
    result, = json.loads(capsys.readouterr().out)
    assert result['gaussians'] == 300 and result['written_bytes'] == target.stat().st_size
    assert result['sh_degree'] == 2 and result['written_sh_degree'] == (0 if suffix == 'splat' else 2)
    # Match Gaussians by their nearest mean, independently of the order in the file.
    cloud, back = read_gaussians(source), read_gaussians(target)
    distance, index = torch.cdist(back.means.double(), cloud.means.double()).min(1)
    assert index.unique().numel() == 300
    reported = {loss['quantity']: loss for loss in result['losses']}
    assert reported['position']['largest'] == pytest.approx(distance.max().item(), abs=1e-6)
    assert reported['position']['rms'] == pytest.approx(distance.square().mean().sqrt().item(), abs=1e-6)
    opacity = (back.opacities - cloud.opacities[index]).abs().max().item()
    assert reported['opacity']['largest'] == pytest.approx(opacity, abs=1e-6)
    relative = back.rotations.transpose(1, 2) @ cloud.rotations[index]
    angle = torch.rad2deg(((torch.diagonal(relative.double(), dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).acos())
    assert reported['orientation']['largest'] == pytest.approx(angle.max().item(), abs=0.05)


def test_dropped_bands_are_reported(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / 'out.splat')]) == 0
    out = capsys.readouterr().out
    assert 'SH bands above 0 dropped' in out and 'orientation' in out and str(tmp_path / 'out.splat') in out


@pytest.mark.parametrize('arguments, matrix', [
    (['--up', 'z'], [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    (['--up', '-y'], [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
    (['--up', 'y', '--to-up', 'z'], [[1, 0, 0], [0, 0, -1], [0, 1, 0]])])
def test_up_rotates_the_cloud(source, tmp_path, arguments, matrix):
    assert main([str(source), str(tmp_path / 'out.ply'), *arguments]) == 0
    before, after = read_gaussians(source), read_gaussians(tmp_path / 'out.ply')
    matrix = torch.tensor(matrix, dtype=torch.float32)
    assert torch.allclose(after.means, before.means @ matrix.T, atol=1e-6)
    assert torch.allclose(after.covariances, matrix @ before.covariances @ matrix.T, atol=1e-7)


@pytest.mark.parametrize('format, names', [
    ('spz', ['a.spz', 'b.spz', 'c.spz']), ('sog-folder', ['a/meta.json', 'b/meta.json', 'c/meta.json'])])
def test_a_folder_is_converted_to_a_folder(random_cloud, tmp_path, capsys, format, names):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    (folder / 'c').mkdir(parents=True)
    (folder / 'notes.txt').write_text('not a splat')
    for seed, name in enumerate(['a.compressed.ply', 'b.splat', 'c/meta.json']):
        write_gaussians(random_cloud(10 + seed, seed), folder / name)
    assert main([str(folder), str(out), '--format', format, '--json']) == 0
    assert [result['gaussians'] for result in json.loads(capsys.readouterr().out)] == [10, 11, 12]
    assert [len(read_gaussians(out / name)) for name in names] == [10, 11, 12]


def test_a_bad_file_does_not_stop_the_others(random_cloud, tmp_path, capsys):
    write_gaussians(random_cloud(5), tmp_path / 'good.ply')
    (tmp_path / 'bad.ply').write_bytes((tmp_path / 'good.ply').read_bytes()[:-4])
    assert main([str(tmp_path), str(tmp_path / 'out'), '--format', 'splat']) == 1
    captured = capsys.readouterr()
    assert 'bad.ply: header promises 5' in captured.err and '1 of 2 files failed' in captured.err
    assert len(read_gaussians(tmp_path / 'out' / 'good.splat')) == 5
    assert not (tmp_path / 'out' / 'bad.splat').exists()


def test_clean_drops_and_reports(random_cloud, tmp_path, capsys):
    path = tmp_path / 'cloud.ply'
    write_gaussians(random_cloud(5).replace(means=torch.full((5, 3), 123.0)), path)
    data = path.read_bytes()
    nan, value = torch.tensor([torch.nan]).numpy().tobytes(), torch.tensor([123.0]).numpy().tobytes()
    path.write_bytes(data.replace(value, nan, 1))
    assert main([str(path), str(tmp_path / 'out.ply')]) == 1
    assert main([str(path), str(tmp_path / 'out.ply'), '--clean']) == 0
    assert 'dropped 1 of 5' in capsys.readouterr().out


@pytest.mark.parametrize('arguments, size', [([], (0.9, 1.5)), (['--gltf-encoding', 'integer'], (0.8, 1.4)),
                                             (['--gltf-encoding', 'spz'], (0.05, 0.4))])
def test_gltf_is_written_by_encoding_and_read_back(source, tmp_path, capsys, arguments, size):
    assert main([str(source), str(tmp_path / 'out.glb'), '--json', *arguments]) == 0
    result, = json.loads(capsys.readouterr().out)
    assert result['output_format'] == 'glTF binary with KHR_gaussian_splatting'
    assert size[0] < result['written_bytes'] / result['bytes'] < size[1]
    largest = {loss['quantity']: loss['largest'] for loss in result['losses']}
    if '--gltf-encoding' not in arguments:
        assert largest['position'] == largest['SH bands'] == 0 and largest['orientation'] < 1e-3
    assert main([str(tmp_path / 'out.glb'), str(tmp_path / 'back.ply')]) == 0


def test_comments_and_render_mode_are_kept(source, tmp_path, capsys):
    write_gaussians(read_gaussians(source), source, comments=['Generated by a test', 'SplatRenderMode: mip'])
    assert main([str(source), str(tmp_path / 'copy.ply')]) == 0
    assert 'trained with antialiasing' in capsys.readouterr().out
    assert (tmp_path / 'copy.ply').read_bytes() == source.read_bytes()
    assert main([str(source), str(tmp_path / 'out.spz'), '--json']) == 0
    assert main([str(tmp_path / 'out.spz'), str(tmp_path / 'again.ply'), '--json']) == 0
    assert b'comment SplatRenderMode: mip\n' in (tmp_path / 'again.ply').read_bytes()[:200]


def test_spz_version_is_used(source, tmp_path):
    assert main([str(source), str(tmp_path / 'out.spz'), '--spz-version', '4']) == 0
    assert (tmp_path / 'out.spz').read_bytes()[:4] == b'NGSP'


@pytest.mark.parametrize('arguments, message', [
    (['missing.ply', 'out.ply'], 'missing.ply does not exist'),
    (['chair.ply', 'out.obj'], 'no splat format'),
    (['chair.ply', 'out.ksplat'], '.ksplat files cannot be written'),
    (['chair.ply', 'chair.ply', '--overwrite'], 'is an input'),
    (['chair.ply', 'other.ply'], 'exists; replace it with --overwrite'),
    (['chair.ply', 'mesh.ply', '--overwrite'], 'is not a splat file'),
    (['chair.ply', 'notes.spz', '--overwrite'], 'is not a splat file'),
    (['sogs', 'sogs', '--format', 'sog-folder', '--overwrite'], 'is an input'),
    (['.', '.', '--format', 'ply', '--overwrite'], 'is an input'),
    (['chair.ply', '.'], 'is a folder; name the file'),
    (['chair.ply', 'out.ply', '--format', 'ply'], '--format is for folders'),
    (['chair.ply', 'out.ply', '--spz-version', '2'], '--spz-version is for .spz'),
    (['.', 'out'], 'choose the output format with --format'),
    (['.', 'chair.ply', '--format', 'ply'], 'chair.ply is a file'),
    (['empty', 'out', '--format', 'ply'], 'holds no splat files'),
    (['both', 'out', '--format', 'splat'], 'would both become'),
    (['chair.ply', 'out.ply', '--up', 'w'], 'invalid choice'),
    (['chair.ply'], 'required')])
def test_wrong_use_is_exit_code_2(source, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    cloud = read_gaussians(source)
    for name in ('other.ply', 'both/a.ply', 'both/a.spz', 'sogs/a/meta.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_gaussians(cloud, tmp_path / name)
    (tmp_path / 'mesh.ply').write_bytes(b'ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n')
    (tmp_path / 'notes.spz').write_bytes(b'anything')
    files = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2 and message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == files
    assert not list(tmp_path.glob('out*'))


def test_a_splat_is_overwritten(source, tmp_path):
    target = tmp_path / 'old.spz'
    write_gaussians(read_gaussians(source)[:7], target)
    assert main([str(source), str(target), '--overwrite']) == 0 and len(read_gaussians(target)) == 300


def test_a_folder_goes_on_after_an_error_of_the_system(random_cloud, tmp_path, capsys):
    write_gaussians(random_cloud(5), tmp_path / 'b.ply')
    long = 'a' * 245 + '.ply'  # a legal name, which becomes too long with .compressed
    (tmp_path / long).write_bytes((tmp_path / 'b.ply').read_bytes())
    out = tmp_path / 'out'
    assert main([str(tmp_path), str(out), '--format', 'compressed-ply']) == 1
    captured = capsys.readouterr()
    assert 'aaa' in captured.err and 'the file system allows at most' in captured.err
    assert '1 of 2 files failed' in captured.err and len(read_gaussians(out / 'b.compressed.ply')) == 5


def test_help_ends_with_an_example(capsys):
    with pytest.raises(SystemExit) as exit:
        main(['--help'])
    assert exit.value.code == 0
    assert capsys.readouterr().out.rstrip().endswith(
        'python tools/convert_gaussians.py work_dirs/files work_dirs/spz --format spz')


def test_an_estimated_axis_is_reported_and_turned(splats, tmp_path, capsys):
    source, target = str(splats / 'sneaker_white.splat'), tmp_path / 'up.ply'
    assert main([source, str(target), '--up', 'auto', '--to-up', 'z', '--largest-cluster', '--json']) == 0
    result, = json.loads(capsys.readouterr().out)
    assert result['up'] == '-y' and 1 / 6 < result['up_confidence'] < 1
    assert result['gaussians'] + result['other_clusters'] == len(read_gaussians(source))
    assert main([source, str(target), '--up', 'auto', '--overwrite']) == 0
    assert 'up -y by estimate (confidence 0.' in capsys.readouterr().out
