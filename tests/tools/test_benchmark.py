"""The benchmark program on small inputs, without its repeats."""
import json
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from clipgs_plugin import read_gaussians
from clipgs_plugin.registry.catalogue import load_catalogue
from clipgs_plugin.tools import benchmark
from clipgs_plugin.tools import embed as embed_program
from clipgs_plugin.tools.benchmarks import (
    backbones,
    bad_files,
    embed,
    embed_files,
    inputs,
    start,
    timing,
    triplets,
    views,
)
from clipgs_plugin.tools.benchmarks.timing import Case


@pytest.fixture(autouse=True)
def once(monkeypatch):
    monkeypatch.setattr(timing, 'measure',
                        lambda functions, *_: [(function(), (2.0, 2.0))[1] for function in functions])


ARGUMENTS = ['ops', '--points', '200', '--clouds', '2', '--groups', '16', '--size', '4', '--threads', '1']
FEW = dict(points=200, groups=16, size=4)


def test_json_is_all_that_is_printed(capsys):
    assert benchmark.main([*ARGUMENTS, '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['options'] == dict(points=200, clouds=2, groups=16, size=4, threads='1')
    cases = {(case['what'], case['way']): case for case in found['cases']}
    assert cases['FPS', 'cpu']['note'].startswith('100.00%')
    assert cases['FPS', 'cpu']['ms'] == 1.0 and cases['FPS', 'cpu']['times'] == 1.0


def test_table_names_every_case(capsys):
    assert benchmark.main(ARGUMENTS) == 0
    table = capsys.readouterr().out
    assert all(word in table for word in ('naive loop', 'reference', 'hilbert', 'order by content'))


def test_measure_takes_the_least_after_a_warm_up(monkeypatch):
    monkeypatch.undo()
    delays = iter([0.3, 0.02, 0.002, 0.02])
    (ms, cpu_ms), = timing.measure([lambda: time.sleep(next(delays, 0.02))], seconds=0.03)
    assert 2 <= ms < 300
    assert cpu_ms < ms


def test_measure_takes_functions_in_turn(monkeypatch):
    monkeypatch.undo()
    calls = []
    times = timing.measure([lambda: calls.append('a'), lambda: calls.append('b'), lambda: calls.append('c')],
                              seconds=1e-9, repeats=2)
    assert len(times) == 3 and ''.join(calls) == 'abc' * (len(calls) // 3)


def test_embed_compares_encoders_with_and_without_refinement(monkeypatch):
    monkeypatch.setattr(timing, 'measure', lambda functions, *_: [
        (function(), (2.0 + i, 10.0 * 2 ** i))[1] for i, function in enumerate(functions)])
    cases = {(case.what, case.way): case for case in embed.embed(**FEW, clouds=2, threads='1')}
    assert {what for what, _ in cases} == {'PointBERT', 'Uni3D s', 'patch encoder'}
    for name in ('PointBERT', 'Uni3D s'):
        ways = [cases[name, way] for way in ('fp32, as published', 'fp32', 'fp32, refined', 'bf16', 'bf16, refined')]
        assert [case.ms for case in ways] == [2, 3, 4, 5, 6] and [case.cpu_ms for case in ways] == [10, 20, 40, 80, 160]
        assert ways[3].times == 2 / 5 and ways[3].cpu_times == 10 / 80
        assert float(ways[1].note.removeprefix('differs by ')) < 1e-5
        assert ways[2].note == '+33%, by CPU +100%'
        assert ways[4].note.startswith('+20%, by CPU +100%, cosine 0.99')
        assert all(case.budget_ms is None for case in ways)  # which are for the standard size
    assert cases['patch encoder', 'bf16'].ms == 2.0  # per object, of which there are two
    assert float(cases['patch encoder', 'bf16'].note.split()[1]) > 0.9999
    assert torch.is_grad_enabled()  # as before


@pytest.mark.filterwarnings('ignore')
def test_embed_files_compares_the_stream_with_the_encoder_alone(splats):
    cases = embed_files.embed_files(files=8, points=50, source=str(splats), workers=0, threads=1, rounds=1)
    assert [case.way for case in cases] == ['encoder alone', 'one after another', 'stream']
    assert cases[0].ms > 0 < cases[1].ms and cases[2].times == cases[0].ms / cases[2].ms
    assert cases[0].what == '8 files of 50 Gaussians, clipgs_toy in fp32 on cpu'


def test_precisions_agree(splats):
    row, = embed_files.precision(files=4, points=50, model='clipgs_toy', source=str(splats))
    assert row.objects == 4 and 0.99 < float(row.note.removeprefix('least ')) <= row.mean < 1


def test_damaged_files_are_listed_and_the_others_embedded(tmp_path, monkeypatch):
    monkeypatch.setattr(bad_files, 'DISTINCT', 6)
    damaged = bad_files.write_files(tmp_path / 'files', files=40, bad=20, gaussians=64, seed=0)
    for path in (tmp_path / 'files').iterdir():
        with pytest.raises(ValueError) if str(path) in damaged else nullcontext():
            read_gaussians(path)
    assert {Path(path).suffix for path in damaged} == {'.ply', '.splat', '.spz'}

    def run(command, **_):
        return SimpleNamespace(returncode=embed_program.main([*command[3:-1], '0']))
    monkeypatch.setattr(bad_files.subprocess, 'run', run)
    for way in ('first run', 'second run'):
        case = bad_files.embedded(tmp_path / 'files', tmp_path / 'index', damaged, way, '40 files', 'clipgs_toy', 1)
        assert case.note.startswith('20 rows and 20 lines of failed.jsonl, those of the sound and the damaged files; '
                                    'status 1')


def test_triplets_are_timed_step_by_step(tmp_path, monkeypatch):
    from clipgs_plugin.generation.fitting import optimise
    monkeypatch.setattr(optimise, 'PRESETS', {name: optimise.FitSettings(num_gaussians=50, iterations=2, check_every=0)
                                             for name in ('draft', 'default')})
    (tmp_path / 'box.off').write_text('OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n')
    cases = triplets.triplets(str(tmp_path))
    names = [(case.what, case.way) for case in cases if case.way != 'egl']
    assert names == [('views', 'raycast'), ('fit', 'draft'), ('fit', 'default'), ('storage', 'encode'),
                     ('storage', 'read Gaussians'), ('storage', 'read views')]
    assert all('PSNR' in case.note for case in cases if case.what == 'fit')
    with pytest.raises(ValueError, match='--meshes FOLDER'):
        triplets.triplets()


def test_every_backbone_is_among_the_benchmarked():
    import clipgs_plugin.models  # noqa: F401  registers them
    from clipgs_plugin.registry import MODELS

    registered = {name for name, kind in MODELS.module_dict.items()
                  if getattr(kind, 'input', None) in ('tokens', 'gaussians')
                  and not kind.__module__.startswith('clipgs_plugin.geometric')}
    benchmarked = {cfg['type'] for cfg in backbones.BACKBONES.values()}
    assert registered == benchmarked
    assert set(backbones.TOKENIZERS) <= benchmarked


@pytest.mark.parametrize('name', backbones.BACKBONES)
def test_backbones_are_built_by_name(name):
    cfg = backbones.BACKBONES[name]
    with torch.device('meta'):
        encoder = inputs.build_encoder(cfg, 16, 4, **backbones.TOKENIZERS.get(cfg['type'], {}))
    assert type(encoder.backbone).__name__ == cfg['type']
    if encoder.tokenizer is not None:
        assert (encoder.tokenizer.num_groups, encoder.tokenizer.group_size) == (16, 4)
        assert encoder.tokenizer.refinement is not None


def test_backbones_are_timed_in_processes_of_their_own(capsys):
    few = [f'--{key}={value}' for key, value in FEW.items()]
    arguments = ['backbones', '--only', 'PointBERT', *few, '--device', 'cpu', '--threads', '1', '--seconds', '0']
    assert benchmark.main([*arguments, '--json']) == 0
    cases = json.loads(capsys.readouterr().out)['cases']
    parts = ('embedding', 'tokenizer', 'transformer', 'training step')
    assert [(case['what'], case['way']) for case in cases] == [
        (f'PointBERT: {part}', way) for part in parts for way in ('fp32', 'bf16')]
    for case in cases:
        assert case['unit'] == 'object' and case['threads'] == 1 and 0 < case['ms'] < math.inf
    assert cases[1]['times'] == cases[0]['ms'] / cases[1]['ms']

    # In training there are gradients and two moments beside the weights.
    with torch.device('meta'):
        encoder = inputs.build_encoder(backbones.BACKBONES['PointBERT'], 16, 4)
    weights = sum(value.numel() for value in encoder.parameters()) * 4 / 2 ** 20
    if sys.platform != 'win32':
        for case, least in zip((cases[0], cases[1], cases[-2]), (weights, weights / 2, 4 * weights)):
            assert 0.9 * least < case['memory_mb'] < 1.5 * least + 50, case


@pytest.mark.parametrize(('way', 'parts'), [
    ('fp32', ['embedding', 'tokenizer', 'transformer']), ('bf16', ['embedding', 'tokenizer', 'transformer']),
    ('training fp32', ['training step']), ('training bf16', ['training step'])])
def test_parts_of_an_encoder_are_timed_apart(way, parts, set_threads):
    nano = dict(type='PointBERT', embed_dims=24, depth=2, num_heads=2)
    measured = backbones.time_encoder(nano, way, **FEW, batch=2, device='cpu', threads=1, seconds=0.0)
    assert list(measured) == parts
    assert all(times[:2] == (2.0, 2.0) for times in measured.values())
    assert [times[2] is None for times in measured.values()] == [False, True, True][:len(parts)]
    assert torch.get_default_dtype() == torch.float32


def test_a_training_step_changes_weights_and_embedding_does_not():
    from clipgs_plugin import GaussianBatch

    objects = GaussianBatch.from_clouds([inputs.surface_gaussians(50)] * 2)
    encoder = inputs.build_encoder(dict(type='PointBERT', embed_dims=24, depth=2, num_heads=2), 16, 4)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for function in backbones.embedding_parts(encoder, objects).values():
        function()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    for function in backbones.training_parts(encoder, objects, autocast=False).values():
        function()
    moved = [name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])]
    assert any(name.startswith('tokenizer.refinement') for name in moved)
    assert any(name.startswith('backbone') for name in moved)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--only', 'nothing'], '--only nothing: no such backbone; there are PointBERT, '),
    (['--device', 'abacus'], '--device abacus: expected auto or cpu, or cuda where there is a GPU')])
def test_wrong_options_are_named(arguments, message):
    with pytest.raises(ValueError) as error:
        benchmark.main(['backbones', *arguments])
    assert str(error.value).startswith(message)


def test_table_shows_rates_memory_and_missed_budgets_where_there_are_any():
    cases = [Case('a', 'slow', 1, 500.0, 400.0, 'object', budget_ms=390, memory_mb=123.4),
             Case('a', 'fast', 1, 40.0, 30.0, 'object', times=12.5, budget_ms=390)]
    table = benchmark.table_of(cases)
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns['a second'] == ['2', '25'] and columns['MB'] == ['123', ''] and columns['faster'] == ['', 'x12.5']
    assert columns['ms'] == ['[red]500.00[/]', '40.00']
    assert 'note' not in columns and 'by CPU' not in columns


def test_unknown_benchmark_is_wrong_use():
    with pytest.raises(SystemExit) as stop:
        benchmark.main(['nothing'])
    assert stop.value.code == 2


def test_upright_and_robustness_are_measured(tmp_path, monkeypatch):
    from clipgs_plugin import write_gaussians
    from clipgs_plugin.tools.benchmarks import robustness, upright
    from clipgs_plugin.toy_world.writing import export_files
    for i in range(6):  # the halves of these names both have some
        (tmp_path / f'box{i}.off').write_text(
            'OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n')
    rows = upright.upright(str(tmp_path), gaussians=200)
    ways = {row.way for row in rows if row.what == 'ablation, meshes'}
    assert {'all in use', 'only support', 'without symmetry', 'with detail'} <= ways
    assert all(0 <= row.mean <= 1 for row in rows)

    files = export_files(tmp_path / 'files', 2)
    write_gaussians(inputs.surface_gaussians(600), files[0].parent / 'sphere.splat')
    kept = {name: change for name, change in robustness.changes().items()
            if name in ('written and read as .ply', 'on a table of 40%', 'on a table of 40%, --remove-plane')}
    monkeypatch.setattr(robustness, 'changes', lambda: kept)
    monkeypatch.setattr(robustness, 'MENDED_TURNS', 1)
    found = {(row.what, row.way): row.mean for row in robustness.robustness(str(files[0].parent))}
    assert found['written and read as .ply', 'cosine'] == pytest.approx(1, abs=1e-6)
    assert found['written and read as .ply', 'top-1 kept'] == 1
    assert found['on a table of 40%, --remove-plane', 'cosine'] > found['on a table of 40%', 'cosine']
    with pytest.raises(ValueError, match='--files FOLDER or --meshes FOLDER'):
        robustness.robustness()


def test_views_time_rendering_and_image_tower_apart(set_threads):
    measured = views.time_views('toy-clip', 2, 200, 'cpu', 1, 0.1)
    assert list(measured) == ['embedding', 'rendering', 'image tower']
    assert [memory is None for *_, memory in measured.values()] == [False, True, True]
    assert all((ms, cpu_ms) == (2.0, 2.0) for ms, cpu_ms, _ in measured.values())


def test_views_are_a_row_among_the_backbones(monkeypatch):
    asked = []

    class Now:
        def __init__(self, *args, **kwargs):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def submit(self, call):
            asked.append((call.func, call.args))
            return SimpleNamespace(result=lambda: {'embedding': (4.0 if len(asked) % 2 else 2.0, 3.0, 9.0)})

    monkeypatch.setattr(backbones, 'ProcessPoolExecutor', Now)
    rows = backbones.backbones(points=300, batch=4, device='cpu', threads=1, seconds=0.0)[-2:]
    assert asked[-2:] == [(views.time_views, ('ViT-B-32', 12, 300, 'cpu', 1, 0.0, way)) for way in ('fp32', 'bf16')]
    assert [(row.what, row.way, row.ms, row.memory_mb) for row in rows] == [
        ('views:ViT-B-32: embedding', 'fp32', 4.0, 9.0), ('views:ViT-B-32: embedding', 'bf16', 2.0, 9.0)]
    assert rows[1].times == 2
    several = backbones.backbones(only='pointnet2,DGCNN,serialized', points=300, device='cpu', seconds=0.0)
    assert [row.what.partition(':')[0] for row in several[::4]] == ['PointNet2', 'DGCNN', 'Serialized']
    with pytest.raises(ValueError, match='DGCNN, Serialized, views:ViT-B-32'):
        backbones.backbones(only='nothing')


def test_the_start_is_timed_at_the_first_and_at_later_openings(monkeypatch):
    seen = []

    def now(function, *arguments):
        copy = Path(f'{arguments[1]}.safetensors')
        if function is start.write_published:
            arguments[1].write_bytes(b'0' * 2_000_000)
            return None
        seen.append(copy.exists())
        copy.touch()
        return 100.0 * (3 if not seen[-1] else 1) + len(seen), 5.0

    monkeypatch.setattr(start, 'in_process', now)
    first, later = start.start('uni3d-ti', repeats=2)
    assert seen == [False, True, False, True]
    assert (first.way, first.ms, first.budget_ms, first.note) == ('first', 301.0, None, 'file of 2 MB')
    assert (later.way, later.ms, later.budget_ms) == ('later', 102.0, 1000.0)


def test_the_file_of_the_start_is_one_that_its_name_opens(tmp_path, monkeypatch):
    catalogue = load_catalogue('checkpoints')
    monkeypatch.setitem(catalogue, 'uni3d-ti', catalogue['uni3d-ti'] | dict(architecture=dict(
        tokenizer=dict(channels=512), backbone=dict(type='Uni3D', size='ti', depth=1, in_channels=512))))
    start.write_published('uni3d-ti', tmp_path / 'uni3d-ti.pt')
    monkeypatch.setenv('CLIPGS_CHECKPOINTS', str(tmp_path))
    wall, cpu = start.time_opening('uni3d-ti', tmp_path / 'uni3d-ti.pt', 1)
    assert wall > 0 and cpu > 0 and (tmp_path / 'uni3d-ti.pt.safetensors').is_file()
    with pytest.raises(ValueError, match='--names point-mae: expected models of uni3d'):
        start.write_published('point-mae', tmp_path / 'x.pt')
