"""The options of the quickstart, by the commands that it runs; its training runs elsewhere."""
import os
import shlex
import shutil
import subprocess

import pytest


@pytest.fixture
def quickstart(root, tmp_path):
    """Run the script with an interpreter that writes its arguments down, in an environment that counts as installed."""
    venv = tmp_path / 'venv'
    (venv / 'bin').mkdir(parents=True)
    shutil.copy(root / 'setup.cfg', venv / 'installed-triplets')
    (venv / 'bin' / 'python').write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$CALLS"\nexit "${STATUS:-0}"\n')
    (venv / 'bin' / 'python').chmod(0o755)
    (tmp_path / 'scans').mkdir()

    def run(options, **env):
        (tmp_path / 'calls').write_text('')
        done = subprocess.run(['bash', str(root / 'tools' / 'quickstart.sh'), *shlex.split(options)], cwd=tmp_path,
                              env={**os.environ, 'CLIPGS_VENV': str(venv), 'CALLS': str(tmp_path / 'calls'), **env},
                              capture_output=True, text=True, timeout=60)
        return done, (tmp_path / 'calls').read_text().splitlines()
    return run


INDEX = 'work_dirs/quickstart-search/embeddings.npz'


@pytest.mark.parametrize('options, model, rest, text', [
    ('scans --model uni3d-b', 'uni3d-b', '', 'a red chair'),
    ('--model views:ViT-B-32 --text "a blue mug" --up -y scans', 'views:ViT-B-32', ' --up=-y', 'a blue mug'),
    ('--model scans scans', '{here}/scans', '', 'a red chair'), ('--model hf-hub:a/b scans', 'hf-hub:a/b', '',
                                                                 'a red chair')])
def test_a_model_embeds_and_searches_and_trains_nothing(quickstart, tmp_path, options, model, rest, text):
    done, calls = quickstart(options)
    assert done.returncode == 0, done.stderr
    assert calls == [f'tools/embed.py {tmp_path}/scans -o {INDEX} --model {model.format(here=tmp_path)}{rest}',
                     f'tools/search.py {INDEX} --text {text} -k 5']
    assert f"Searching them for '{text}'" in done.stdout


def test_a_model_without_files_ends_the_script(quickstart):
    done, calls = quickstart('scans --model uni3d-b', STATUS='1')
    assert done.returncode == 1 and len(calls) == 1 and 'Done' not in done.stdout


@pytest.mark.parametrize('options, status, message', [
    ('--model uni3d-b', 2, '--model needs splat files'), ('--model', 2, '--model needs a value'),
    ('--text "" scans', 2, '--text is empty'), ('scans --up z', 2, '--up needs --model'),
    ('absent.ply', 1, 'absent.ply does not exist'), ('--long', 2, 'unknown option --long')])
def test_wrong_use_is_one_line(quickstart, options, status, message):
    done, calls = quickstart(options)
    assert (done.returncode, calls) == (status, [])
    assert done.stderr.startswith(f'error: {message}') and done.stderr.count('\n') == 1


def test_help_is_the_head_of_the_script(quickstart):
    done, calls = quickstart('--help')
    assert done.returncode == 0 and not calls
    assert done.stdout.startswith('From nothing') and done.stdout.rstrip().endswith('an interrupted training resumes.')


def test_without_options_the_toys_are_made_trained_and_searched(quickstart, root):
    _, calls = quickstart('', STATUS='1')
    work = 'work_dirs/quickstart'
    assert calls == [f'tools/make_toy_world.py {root}/{work}/toy_world --export {work}/files']


@pytest.mark.parametrize('given, expected', [
    ({}, 'home/.cache/huggingface'), ({'XDG_CACHE_HOME': 'x'}, 'x/huggingface'), ({'HF_HOME': 'h'}, 'h')])
def test_downloaded_models_lie_where_other_shells_find_them(root, given, expected):
    done = subprocess.run(['bash', '-uc', f'source {shlex.quote(str(root))}/tools/environment.sh; echo "$HF_HOME"'],
                          env={'PATH': os.environ['PATH'], 'HOME': 'home', **given}, capture_output=True, text=True)
    assert done.stdout == f'{expected}\n' and not done.stderr
