"""The benchmark of the pages on a few objects."""
import pytest

from clipgs_plugin.tools.benchmarks import page


def test_frames_start_and_size_of_both_pages_are_measured(tmp_path):
    for package in ('fastapi', 'uvicorn', 'playwright'):
        pytest.importorskip(package)
    try:
        page.find_chromium()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    rows = {(row.page, row.what): row for row in page.page(rows=40, steps=6, starts=1, folder=str(tmp_path))}
    for name in ('gallery', 'served'):
        assert rows[name, 'start'].median > 0 and rows[name, 'elements'].median > 40 * 5
        for what in ('scrolling', 'map'):
            frames, work = rows[name, f'{what}: between frames'], rows[name, f'{what}: main thread a frame']
            assert frames.count > 3 and 10 < frames.median <= frames.most <= frames.worst
            assert work.count > 3 and 0 < work.median <= work.worst
    files = [path.stat().st_size for path in (tmp_path / 'gallery').rglob('*') if path.is_file()]
    assert len(files) == 2 * 40 + 8 and rows['gallery', 'whole folder'].median == sum(files) / 1e6


def test_rows_summarise_their_values():
    row = page.spread('served', 'start', 's', range(101))
    assert (row.median, row.most, row.worst, row.count) == (50, 95, 100, 101)
