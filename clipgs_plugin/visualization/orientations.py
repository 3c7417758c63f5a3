"""Sheet of an object in six orientations, one for each axis that may be up."""
from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from clipgs_plugin.ops.rotations import AXES
from clipgs_plugin.structures import GaussianCloud
from clipgs_plugin.visualization.turntable import turntable

VIEWS = 2          # from the front and from a side, per orientation
COLUMNS = 3
GAP, HEAD = 6, 20  # pixels


def orientation_sheet(cloud: GaussianCloud, title: str = '', size: int = 192) -> Image.Image:
    """Draw an object as it looks if x, y, z, -x, -y or -z is up, with the option that says so.

    Args:
        cloud: Object in any frame.
        title: Line of text above the sheet, such as the name of the file.
        size: Side of a picture in pixels; an orientation has two.

    Returns:
        RGB image on white, of three columns and two rows of orientations.
    """
    width, height = VIEWS * size + GAP, HEAD + size + GAP
    rows = -(-len(AXES) // COLUMNS)
    sheet = Image.new('RGB', (COLUMNS * width + GAP, rows * height + HEAD + GAP), 'white')
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    draw.text((GAP, 2), f'{title}: choose the picture that stands upright'.removeprefix(': '), fill='black', font=font)
    for i, axis in enumerate(AXES):
        x, y = GAP + i % COLUMNS * width, HEAD + i // COLUMNS * height
        draw.text((x, y + 2), f'{axis} up:  --up {axis}', fill='black', font=font)
        views = turntable(cloud, VIEWS * 2, size, axis)[:VIEWS]  # a quarter turn apart
        for k, view in enumerate((views * 255).round().byte().numpy()):
            sheet.paste(Image.fromarray(view), (x + k * size, y + HEAD))
    return sheet
