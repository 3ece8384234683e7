"""The classical filters, as convolution and as cross-correlation.

    correlation   y[i, j] = sum over r, s of  x[i + r, j + s] * h[r, s]         what layers of networks compute
    convolution   y[i, j] = sum over r, s of  x[i - r, j - s] * h[r, s]         the same with h turned by 180 degrees

(r and s count from the middle of h, row R // 2 and column S // 2, as in SciPy.) For kernels that the turn does not change, both are
the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numbanet._tensor import Tensor
from numbanet.errors import ShapeError, UsageError
from numbanet.nn import functional as F

LARGEST = 31        # rows or columns of a filter


@dataclass(frozen=True)
class Filter:
    """A kernel and what is to be said about it."""

    name: str
    kernel: tuple[tuple[float, ...], ...]
    note: str

    @property
    def array(self) -> np.ndarray:
        return np.array(self.kernel, np.float64)


def _divided(rows, by):
    return tuple(tuple(v / by for v in row) for row in rows)


FILTERS = {f.name: f for f in (
    Filter("identity", ((0, 0, 0), (0, 1, 0), (0, 0, 0)), "the picture itself"),
    Filter("edge", ((1, 0, -1), (0, 0, 0), (-1, 0, 1)), "answers to corners and slanted edges; flat areas become 0"),
    Filter("laplacian", ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
           "the sum of the second derivatives; often printed as \"sharpen\", which it is not: flat areas become 0"),
    Filter("sharpen", ((0, -1, 0), (-1, 5, -1), (0, -1, 0)), "identity minus laplacian: raises differences, keeps flat areas"),
    Filter("box", _divided(((1, 1, 1),) * 3, 9), "the mean of nine pixels"),
    Filter("gaussian", _divided(((1, 2, 1), (2, 4, 2), (1, 2, 1)), 16), "a mean that weighs near pixels more"),
    Filter("sobel", ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), "the change from left to right: upright edges"),
    Filter("sobel-y", ((-1, -2, -1), (0, 0, 0), (1, 2, 1)), "the change from top to bottom: level edges"),
    Filter("emboss", ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), "light from the upper left corner"),
)}


def parse_filter(text: str) -> Filter:
    """A filter by name, or a matrix as text: rows between semicolons, numbers between blanks or commas; fractions such as 1/9 are fine.

    Raises
    ------
    UsageError
        Neither a known name nor a matrix; the message says which row or number is wrong.
    """
    name = text.strip().lower()
    if name in FILTERS:
        return FILTERS[name]
    if not any(c.isdigit() for c in name):
        import difflib
        close = difflib.get_close_matches(name, FILTERS, 1)
        hint = f"did you mean {close[0]}? They are" if close else "expected one of"
        raise UsageError(f"filter: there is no filter {text.strip()!r}; {hint} {', '.join(FILTERS)}, or a matrix such as "
                         "\"1 0 -1; 0 0 0; -1 0 1\"")
    rows = [row.replace(",", " ").split() for row in text.strip().strip("[]").strip(";").split(";")]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1 or 0 in lengths:
        raise UsageError(f"filter: a matrix has rows of one length, received rows of {', '.join(str(len(r)) for r in rows)} numbers in "
                         f"{text!r}; rows end with a semicolon")
    if len(rows) > LARGEST or len(rows[0]) > LARGEST:
        raise UsageError(f"filter: expected at most {LARGEST} x {LARGEST} numbers, received {len(rows)} x {len(rows[0])}")
    return Filter("own", tuple(tuple(_number(word, text) for word in row) for row in rows), "")


def _number(word: str, text: str) -> float:
    above, slash, below = word.partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        value = float("nan")
    if not np.isfinite(value):
        raise UsageError(f"filter: {word!r} in {text!r} is not a number; expected a matrix such as \"1 0 -1; 0 0 0; -1 0 1\"")
    return value


def convolve(image: Tensor, kernel, mode: str = "convolution", stride: int | Sequence[int] = 1,
             padding: str | int | Sequence[int] = "same", dilation: int | Sequence[int] = 1) -> Tensor:
    """Every channel of a picture through the same filter.

    Parameters
    ----------
    image : Tensor (H, W), (C, H, W) or (N, C, H, W)
    kernel : name, text or array (R, S)
        What :func:`parse_filter` takes, or the numbers.
    mode : {"convolution", "correlation"}
        Whether the kernel is turned by 180 degrees.
    stride, padding, dilation
        As in `conv2d`; "same" pads with zeros so that the size stays. For strides above 1 it pads as for 1.

    Returns
    -------
    Tensor, with as many axes as `image`
    """
    if mode not in ("convolution", "correlation"):
        raise UsageError(f"convolve: mode expects 'convolution' or 'correlation', received {mode!r}")
    values = parse_filter(kernel).array if isinstance(kernel, str) else np.array(kernel, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ShapeError(f"convolve: kernel expects a matrix (R, S) of numbers, received shape {values.shape}")
    if not 2 <= image.ndim <= 4:
        raise ShapeError(f"convolve: image expects (H, W), (C, H, W) or (N, C, H, W), received {tuple(image.shape)}")
    if mode == "convolution":
        values = values[::-1, ::-1]
    x = image.reshape((1,) * (4 - image.ndim) + tuple(image.shape))
    weight = _like(np.broadcast_to(values, (x.shape[1], 1, *values.shape)).copy(), x)
    if padding == "same":
        d = (dilation, dilation) if isinstance(dilation, int) else tuple(dilation)
        middles = [n // 2 if mode == "correlation" else n - 1 - n // 2 for n in values.shape]      # of the kernel as it is used
        before = [step * m for m, step in zip(middles, d)]
        after = [step * (n - 1) - b for n, step, b in zip(values.shape, d, before)]
        x, padding = F.pad(x, (before[1], after[1], before[0], after[0])), 0
    y = F.conv2d(x, weight, None, stride, padding, dilation, groups=x.shape[1])
    return y.reshape(tuple(y.shape[4 - image.ndim:])) if image.ndim < 4 else y


def _like(values: np.ndarray, x: Tensor) -> Tensor:
    import numbanet
    return numbanet.tensor(values, dtype=x.dtype, device=x.device)


def filter_pixels(kernel: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, str]:
    """Filtered 8-bit values (C, H, W) as a picture, and how it was made one.

    Filters whose numbers sum to 0 give differences, which are shown around mid-grey, stretched; all others are cut to 0..255.
    """
    values = np.asarray(values, np.float64).transpose(1, 2, 0)
    if abs(kernel.sum()) < 1e-6 * max(np.abs(kernel).sum(), 1e-12):
        most = float(np.percentile(np.abs(values), 99.5)) or 1.0
        return np.clip(np.round(127.5 + 127.5 * values / most), 0, 255).astype(np.uint8), f"grey is 0, black {-most:.0f}, white {most:.0f}"
    return np.clip(np.round(values), 0, 255).astype(np.uint8), "cut to 0..255"


def convolution_sheet(pixels: np.ndarray, chosen: Filter, stride: int = 1, padding: str | int = "same", dilation: int = 1, device=None,
                      name: str = ""):
    """Picture, cross-correlation and true convolution side by side with their kernels, and the facts on it.

    `pixels` is uint8 (H, W) or (H, W, 3).
    """
    import numbanet
    from numbanet.vision.colours import colourise
    from numbanet.vision.composition import Cell, Section, compose, number
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    x = numbanet.tensor(np.ascontiguousarray(planes), dtype=numbanet.float32, device=device)
    kernel = chosen.array
    same = np.array_equal(kernel, kernel[::-1, ::-1])
    cells, facts = [Cell(pixels, ("picture", f"{pixels.shape[0]} x {pixels.shape[1]}"), True)], []
    for mode in ("correlation", "convolution"):
        y = convolve(x, kernel, mode, stride, padding, dilation).numpy()
        picture, how = filter_pixels(kernel, y)
        label = "cross-correlation, as in networks" if mode == "correlation" else "convolution: kernel turned by 180 degrees"
        cells.append(Cell(picture[..., 0] if picture.shape[2] == 1 else picture,
                          (label, f"{y.shape[1]} x {y.shape[2]}, {number(float(y.min()))} to {number(float(y.max()))}, {how}"), True))
        facts.append({"mode": mode, "shape": list(y.shape), "minimum": float(y.min()), "maximum": float(y.max())})
    most = float(np.abs(kernel).max()) or 1.0
    drawn = [Cell(colourise(k, "signed", -most, most), (text,), numbers=k) for k, text in (
        (kernel, "kernel as written"), (kernel[::-1, ::-1], "turned by 180 degrees"))]
    lines = [chosen.note[:1].upper() + chosen.note[1:] + "." if chosen.note else f"Own kernel, {kernel.shape[0]} x {kernel.shape[1]}."]
    lines.append("Turning does not change this kernel, so both are the same." if same
                 else "The kernel is not symmetric about its middle, so the two differ.")
    sections = [Section(cells, "", 3), Section(drawn, f"the numbers sum to {number(float(kernel.sum()))}", 3, longest=220, offset=1)]
    return compose(f"{name + ': ' if name else ''}{chosen.name}", lines, sections), {
        "filter": chosen.name, "kernel": kernel.tolist(), "results": facts, "symmetric": same}
