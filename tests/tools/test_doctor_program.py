"""The program around :func:`clipgs_plugin.apis.diagnose`."""
import argparse
import ast
import importlib
import inspect
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from clipgs_plugin import write_gaussians
from clipgs_plugin.apis import doctor as diagnosis
from clipgs_plugin.apis import doctor_checks
from clipgs_plugin.structures import surface_discs
from clipgs_plugin.tools.doctor import main
from clipgs_plugin.toy_world import make_object
from clipgs_plugin.toy_world.specs import object_specs


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A healthy object, the same with a NaN, and a text with the name of a splat."""
    folder = tmp_path_factory.mktemp('files')
    cloud = make_object(object_specs(1)[0]).gaussians
    write_gaussians(cloud, folder / 'a.ply')
    marked = cloud.means.clone()
    marked[3, 0] = 123.0
    write_gaussians(cloud.replace(means=marked), folder / 'b.ply')
    value, nan = (np.float32(x).tobytes() for x in (123.0, np.nan))
    (folder / 'b.ply').write_bytes((folder / 'b.ply').read_bytes().replace(value, nan, 1))
    (folder / 'c.spz').write_text('not a splat')
    return folder


def test_a_single_file_shows_every_check(folder, capsys):
    assert main([str(folder / 'a.ply')]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(folder / 'a.ply')
    assert [line.split()[0] for line in lines].count('ok') == len(lines) - 1
    assert lines[0].startswith('  ok      file: INRIA .ply binary_little_endian 1.0, ')
    assert lines[-1].startswith('  note    up: ') and '--up AXIS' in lines[-1]


def test_several_files_end_with_a_table_and_a_bad_one_stops_none(folder, capsys):
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert 'values: 1 of 1,024 Gaussians are invalid, the first at index 3' in out
    assert 'c.spz' in out and 'Niantic .spz' in out and 'floaters: none' not in out
    rows = {line.split()[1]: line for line in out.splitlines() if line.startswith('│')}
    assert 'note' in rows['a.ply'] and 'values' in rows['b.ply'] and 'file' in rows['c.spz']


def test_json_has_the_documented_schema(folder, capsys, root):
    assert main([str(folder), '--json', '--model', 'clipgs_toy']) == 1
    report = json.loads(capsys.readouterr().out)
    assert report['schema'] == 1 and report['model'] == 'clipgs_toy'
    good, cleaned, bad = report['files']
    assert [item['grade'] for item in report['files']] == ['note', 'error', 'error']
    assert bad['facts'] == {} and [item['check'] for item in bad['findings']] == ['file']
    assert cleaned['facts']['invalid'] == 1 and good['facts']['gaussians'] == 1024
    page = (root / 'docs' / 'doctor.md').read_text(encoding='utf-8')
    for name in [*good['facts'], *(item['check'] for item in good['findings']), *good['findings'][0]]:
        assert f'`{name}`' in page


def test_a_missing_file_is_a_finding(folder, capsys):
    assert main([str(folder / 'a.ply'), str(folder / 'none.ply')]) == 1
    assert 'file: the file does not exist; check the path' in capsys.readouterr().out


def test_the_sheet_shows_the_object_upright_beside_its_option(tmp_path, capsys):
    """A tall pole with a red top along z stands upright in the picture of z, and lies in that of x."""
    height = np.random.default_rng(0).uniform(-1, 1, 400)
    points = np.stack([np.zeros(400), np.zeros(400), height], 1)
    colors = np.where(height[:, None] > 0, [[0.9, 0.0, 0.0]], [[0.0, 0.0, 0.9]])
    cloud = surface_discs(points, np.tile([0.0, 1.0, 0.0], (400, 1)), colors)
    write_gaussians(cloud.replace(log_scales=torch.full((400, 3), -2.5)), tmp_path / 'pole.ply')
    assert main([str(tmp_path / 'pole.ply'), '--sheet', str(tmp_path / 'sheet.png')]) == 0
    assert 'six orientations of' in capsys.readouterr().err
    sheet = np.asarray(Image.open(tmp_path / 'sheet.png')).astype(float)
    width, height = sheet.shape[1] // 3, (sheet.shape[0] - 26) // 2

    def red_above_blue(axis: int) -> float:
        picture = sheet[40 + axis // 3 * height:20 + (axis // 3 + 1) * height, axis % 3 * width:][:, :192]
        red, blue = (picture[..., a] - picture[..., b] > 100 for a, b in ((0, 2), (2, 0)))
        return float(np.nonzero(blue)[0].mean() - np.nonzero(red)[0].mean())

    up, down = red_above_blue(2), red_above_blue(5)  # z, -z
    assert up > 40 and down < -40 and abs(red_above_blue(0)) < 10


@pytest.mark.parametrize('arguments, message', [
    (['a.ply', '--sheet', 'sheet.jpg'], 'ends in .png'), ([], 'required'),
    (['a.ply', '--sheet', 'c.png'], 'exists and is not a picture')])
def test_wrong_use_is_exit_code_2(folder, monkeypatch, tmp_path, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'c.png').write_text('mine')
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / 'c.png').read_text() == 'mine'


def test_no_sheet_without_a_readable_file(folder, tmp_path, capsys):
    assert main([str(folder / 'c.spz'), '--sheet', str(tmp_path / 's.png')]) == 1
    assert 'was not written' in capsys.readouterr().err and not (tmp_path / 's.png').exists()


PROGRAMS = dict(embed=['x.ply'], list_models=[], convert_gaussians=['x.ply', 'y.ply'], doctor=['x.ply'])
VALUES = {'--up': 'z', '--crop': '-1,-1,-1,1,1,1', '--turns': '12', '--sheet': 'sheet.png'}


def test_every_remedy_is_an_option_that_its_program_has(monkeypatch):
    """Options without a program are those of the programs that embed, except --sheet of the doctor itself."""
    class Parsed(Exception):
        """Arguments were understood; the program goes no further."""

    parse = argparse.ArgumentParser.parse_args

    def parse_args(self, *args, **kwargs):
        raise Parsed(parse(self, *args, **kwargs))
    texts = [node.value for module in (doctor_checks, diagnosis) for node in ast.walk(ast.parse(
        inspect.getsource(module))) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    texts += ['--up z']  # of a formatted string
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    seen = set()
    for text in texts:
        named = re.findall(r'tools/(\w+)\.py', text)
        options = re.findall(r'(?<![\w-])--[a-z][a-z-]*', text)
        for option in options:
            program = 'doctor' if option == '--sheet' else named[0] if named else 'embed'
            words = [option, VALUES[option]] if option in VALUES else [option]
            with pytest.raises(Parsed):
                importlib.import_module(f'clipgs_plugin.tools.{program}').main([*PROGRAMS[program], *words])
            seen.add(option)
        for program in named:
            assert program in PROGRAMS, f'{text!r} names tools/{program}.py'
    assert seen == {'--up', '--crop', '--turns', '--sheet', '--remove-plane', '--largest-cluster', '--clean'}
