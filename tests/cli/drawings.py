"""Digits drawn by hand, as strokes: black on white, anywhere on a large sheet."""

from PIL import Image, ImageDraw

# In a box of 20 x 30: lines through points, and arcs (box, from degree, to degree) clockwise from the right.
STROKES = {
    0: [((1, 0, 19, 30), 0, 360)],
    1: [[(10, 0), (10, 30)]],
    2: [((1, 0, 19, 16), 180, 390), [(17, 12), (1, 30), (20, 30)]],
    3: [((2, 0, 18, 15), 190, 450), ((2, 15, 19, 30), 270, 530)],
    4: [[(14, 30), (14, 0), (0, 20), (20, 20)]],
    5: [[(17, 0), (3, 0), (2, 13)], ((1, 11, 19, 30), 230, 520)],
    6: [((2, 0, 30, 40), 180, 260), ((2, 14, 18, 30), 0, 360)],
    7: [[(1, 0), (19, 0), (8, 30)]],
    8: [((3, 0, 17, 14), 0, 360), ((1, 14, 19, 30), 0, 360)],
    9: [((2, 0, 18, 16), 0, 360), [(18, 8), (16, 30)]],
}


def draw_digit(digit: int, size=(200, 260), corner=(40, 30), scale: float = 4.0, width: int = 14, ink=0, paper=255) -> Image.Image:
    """A grey picture of `digit`."""
    image = Image.new("L", size, paper)
    draw = ImageDraw.Draw(image)

    def place(*numbers):
        return [corner[i % 2] + scale * n for i, n in enumerate(numbers)]
    for stroke in STROKES[digit]:
        if isinstance(stroke, tuple):
            box, start, end = stroke
            half = width / 2        # Pillow draws an arc inside of its box
            x0, y0, x1, y1 = place(*box)
            draw.arc((x0 - half, y0 - half, x1 + half, y1 + half), start, end, ink, width)
        else:
            draw.line([tuple(place(*point)) for point in stroke], ink, width, joint="curve")
    return image
