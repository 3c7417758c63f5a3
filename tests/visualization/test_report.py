import base64
import io
import re

import numpy as np
from PIL import Image

from clipgs_plugin.apis.report_runs import read_curves
from clipgs_plugin.visualization.charts import class_colors, draw_curves, figure_svg, thinned
from clipgs_plugin.visualization.report import GalleryRow, Picture, RunReport, Table, draw_gallery, render_html

RED = np.zeros((8, 8, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def test_the_page_contains_its_images_and_escapes_text():
    page = render_html(RunReport('a <b> title', columns=('', 'student'), rows=[('top-1', '81.5')],
                                 gallery=[GalleryRow('red & round', [Picture(RED, 'one', True), Picture(RED, 'two')])]))
    assert 'a &lt;b&gt; title' in page and '<td>81.5</td>' in page and 'red &amp; round' in page
    images = re.findall(r'base64,([^"]+)"', page)
    assert len(images) == 2
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[0]))))
    assert np.abs(shown - RED.astype(int)).max() < 5
    assert page.count('class="hit"') == 1 and 'Confusion' not in page and 'src="http' not in page


def test_the_gallery_frames_correct_results_in_green():
    rows = [GalleryRow('q', [Picture(RED, '', True), Picture(RED, '', False)])]
    gallery = np.asarray(draw_gallery(rows, size=20, words=50))
    assert gallery[0, 50].tolist() == [58, 154, 75] and gallery[0, 78].tolist() == [210, 210, 210]
    assert gallery[12, 62].tolist() == [255, 0, 0]


def test_tables_follow_with_their_notes():
    page = render_html(RunReport('t', tables=[Table('By <class>', 'a & b', ('class', 'accuracy'), [('cup', '50.0')])]))
    assert '>By &lt;class&gt;</h2><p class="note">a &amp; b</p>' in page and '<td>50.0</td>' in page


def test_curves_join_a_resumed_run_with_the_run_before(tmp_path):
    for name, lines in (('20260101_000000', ['{"loss": 3.0, "step": 1}', '{"zero_shot/top1": 10.0, "step": 1}']),
                        ('20260102_000000', ['{"loss": 2.0, "step": 2, "memory": 5}'])):
        folder = tmp_path / name / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(lines) + '\n')
    assert read_curves(tmp_path) == {'loss': ([1, 2], [3.0, 2.0]), 'zero_shot/top1': ([1], [10.0])}


def test_figures_take_the_colour_of_the_text_and_escape_names():
    svg = figure_svg(draw_curves({'a $x$ <b>': {'run': [([1, 2], [3.0, 4.0])]}}, {'run': '#123456'}), 'curves & so')
    assert svg.startswith('<svg role="img" aria-label="curves &amp; so"') and 'http://www.w3.org' in svg
    assert 'currentColor' in svg and '#123456' in svg and 'a $x$ &lt;b&gt;' in svg
    assert 'metadata' not in svg


def test_long_curves_are_averaged():
    steps, values = thinned(range(1000), np.arange(1000) * 2.0)
    assert len(steps) == 300 and np.allclose(values, 2 * steps) and steps[0] == 1.0 and np.isclose(steps[-1], 998.0)
    assert thinned([1, 5], [2.0, 3.0])[1].tolist() == [2.0, 3.0]


def test_colours_of_classes_differ_and_are_readable_on_light_and_dark():
    colors = class_colors(60)
    rgb = np.array([[int(color[i:i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    assert len(set(colors)) == 60
    assert (1.05 / (luminance + 0.05)).min() > 2 and ((luminance + 0.05) / 0.058).min() > 3  # contrasts of WCAG
