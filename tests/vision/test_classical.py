"""The classical filters beside SciPy or sums written out."""

import numpy as np
import pytest

import numbanet
from numbanet.errors import ShapeError, UsageError
from numbanet.vision import FILTERS, convolve, parse_filter
from numbanet.vision.classical import convolution_sheet, filter_pixels


def by_hand(x, h, turned: bool):
    """y[i, j] = sum of x[i + r, j + s] * h[r, s] (or minus), positions from the middle, zeros outside."""
    R, S = h.shape
    y = np.zeros(x.shape)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            for r in range(R):
                for s in range(S):
                    sign = -1 if turned else 1
                    a, b = i + sign * (r - R // 2), j + sign * (s - S // 2)
                    if 0 <= a < x.shape[0] and 0 <= b < x.shape[1]:
                        y[i, j] += x[a, b] * h[r, s]
    return y


@pytest.mark.parametrize("mode", ["convolution", "correlation"])
@pytest.mark.parametrize("kernel", [*FILTERS, "1 2; 3 4", "1 2 3 4 5", "1;2;3;4", "1 0 0 0; 0 0 0 2; 0 3 0 0"])
def test_by_hand(kernel, mode, backend, rng):
    x = rng.integers(0, 256, (9, 11)).astype(np.float64)
    found = convolve(numbanet.tensor(x, device=backend), kernel, mode).numpy()
    np.testing.assert_allclose(found, by_hand(x, parse_filter(kernel).array, mode == "convolution"), atol=1e-9)


@pytest.mark.parametrize("name", FILTERS)
def test_beside_scipy(name, backend, rng):
    ndimage = pytest.importorskip("scipy.ndimage")
    x, h = rng.random((3, 14, 9)), FILTERS[name].array
    for mode, theirs in (("convolution", ndimage.convolve), ("correlation", ndimage.correlate)):
        found = convolve(numbanet.tensor(x, device=backend), name, mode).numpy()
        np.testing.assert_allclose(found, [theirs(plane, h, mode="constant") for plane in x], atol=1e-12)


def test_the_textbooks_matrices():
    assert FILTERS["edge"].array.tolist() == [[1, 0, -1], [0, 0, 0], [-1, 0, 1]]
    assert (FILTERS["gaussian"].array * 16).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert FILTERS["laplacian"].array.tolist() == [[0, 1, 0], [1, -4, 1], [0, 1, 0]] and "sharpen" in FILTERS["laplacian"].note
    assert FILTERS["sharpen"].array.tolist() == [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]
    for name, total in (("identity", 1), ("box", 1), ("gaussian", 1), ("sharpen", 1), ("emboss", 1), ("edge", 0), ("laplacian", 0),
                        ("sobel", 0)):
        assert FILTERS[name].array.sum() == pytest.approx(total)
    np.testing.assert_array_equal(FILTERS["sobel-y"].array, FILTERS["sobel"].array.T)


def test_convolution_is_linear_and_turns(rng):
    x = numbanet.tensor(rng.random((7, 8)))
    np.testing.assert_allclose(convolve(x, "sobel").numpy(), -convolve(x, "sobel", "correlation").numpy(), atol=1e-12)
    np.testing.assert_array_equal(convolve(x, "gaussian").numpy(), convolve(x, "gaussian", "correlation").numpy())
    impulse = numbanet.zeros(5, 5, dtype=numbanet.float64)
    impulse[2, 2] = 1.0
    np.testing.assert_array_equal(convolve(impulse, "1 2 3; 4 5 6; 7 8 9").numpy()[1:4, 1:4], np.arange(1, 10).reshape(3, 3))


def test_stride_padding_dilation(rng):
    x = numbanet.tensor(rng.random((2, 3, 12, 13)))
    assert convolve(x, "box", padding=0).shape == (2, 3, 10, 11)
    assert convolve(x, "box", stride=2).shape == (2, 3, 6, 7)
    assert convolve(x, "box", dilation=3).shape == (2, 3, 12, 13)
    np.testing.assert_array_equal(convolve(x, "sobel", stride=3).numpy(), convolve(x, "sobel").numpy()[:, :, ::3, ::3])


@pytest.mark.parametrize(("text", "message"), [
    ("sobbel", "no filter 'sobbel'; did you mean sobel"), ("blur me", "expected one of identity, edge"),
    ("1 0; 1", "rows of one length, received rows of 2, 1 numbers"), ("1 x 2", "'x' in '1 x 2' is not a number"),
    ("1 nan", "not a number"), ("1/0 1", "not a number"), ("1e999", "not a number"), ("1;;2", "rows of one length"), ("", "no filter ''"),
    (";".join(["1"] * 32), "at most 31 x 31 numbers, received 32 x 1")])
def test_not_a_matrix(text, message):
    with pytest.raises(UsageError, match=message):
        parse_filter(text)


def test_parsed():
    assert parse_filter(" Sobel ").name == "sobel"
    assert parse_filter("1 0, -1;.5 1/4 2e1").array.tolist() == [[1, 0, -1], [0.5, 0.25, 20]]
    assert parse_filter("[1 2; 3 4;]").array.tolist() == [[1, 2], [3, 4]]


def test_what_is_refused():
    with pytest.raises(UsageError, match="'convolution' or 'correlation', received 'both'"):
        convolve(numbanet.zeros(3, 3), "box", "both")
    with pytest.raises(ShapeError, match=r"kernel expects a matrix \(R, S\)"):
        convolve(numbanet.zeros(3, 3), [1.0, 2.0])
    with pytest.raises(ShapeError, match="image expects"):
        convolve(numbanet.zeros(3), "box")
    with pytest.raises(ShapeError, match="smaller than the window"):
        convolve(numbanet.zeros(2, 2), "box", padding=0)


def test_pictures_of_results():
    differences, how = filter_pixels(FILTERS["sobel"].array, np.array([[[-8.0, 0, 8]]]))
    assert differences[..., 0].tolist() == [[0, 128, 255]] and "grey is 0" in how
    brightness, how = filter_pixels(FILTERS["sharpen"].array, np.array([[[-8.0, 100.4, 300]]]))
    assert brightness[..., 0].tolist() == [[0, 100, 255]] and how == "cut to 0..255"


def test_the_same_picture_on_every_backend(rng):
    pixels = rng.integers(0, 256, (21, 34, 3)).astype(np.uint8)
    sheets = [np.asarray(convolution_sheet(pixels, FILTERS["gaussian"], device=device)[0]) for device in ("cpu", "reference")]
    np.testing.assert_array_equal(*sheets)
