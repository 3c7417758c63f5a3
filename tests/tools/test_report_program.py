"""The program that writes the report of a run."""
import pytest
from PIL import Image

from clipgs_plugin.evaluation import EvaluationRecord
from clipgs_plugin.tools import report
from clipgs_plugin.visualization.html_page import page


@pytest.mark.parametrize('arguments', [
    ['-o', 'chair.ply'], ['-o', 'mine.html'], ['-o', 'new.txt'], ['--gallery', 'photo.png'],
    ['--gallery', 'chair.ply'], ['--gallery', 'text.png']])
def test_only_a_report_is_ever_replaced(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    for name in ('chair.ply', 'mine.html', 'text.png'):
        (tmp_path / name).write_text('mine')
    Image.new('RGB', (4, 4)).save(tmp_path / 'photo.png')
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SystemExit) as exit_:
        report.main(['run', *arguments])
    assert exit_.value.code == 2 and arguments[1] in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_differences_of_two_evaluations_are_printed(tmp_path, capsys):
    for name, value in (('a', 30.0), ('b', 45.5)):
        (tmp_path / name).mkdir()
        EvaluationRecord('x', {'zero_shot/top1': value}, 2).save(tmp_path / name / 'metrics.json')
    assert report.main([str(tmp_path / 'a'), '--compare', str(tmp_path / 'b')]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith('zero_shot')] == [
        ['zero_shot/top1', '30.0', '45.5'], ['zero_shot/top1', '-15.5']]
    assert 'Differences' in (tmp_path / 'a' / 'report.html').read_text()


def test_an_earlier_report_may_be_replaced(tmp_path):
    (tmp_path / 'report.html').write_text(page('CLIP-GS: mine', ['<p>old</p>']))
    with pytest.raises(FileNotFoundError, match='has no results'):  # the next thing that is looked at
        report.main([str(tmp_path)])
