"""Images into a network on the CPU, as `contract/image.py` defines it, each in one pass over uint8: through affine maps,

    out[n, i, j, c] = scale[c] * bilinear(padded[n], x, y)[c] + shift[c]        (x, y) = matrices[n] @ (j, i, 1) + 1

padded (N, H + 3, W + 3, C): the images with zeros around them, one row and column before and two after, so that a point held
within one pixel of the image has four neighbours and the loop no branches. out (N, OH, OW, C) of any strides;
scale = 1 / (255 std), shift = -mean / std. And windows cut out and mirrored,

    out[m, i, k] = scale[k] * images[n, top + i, left * C + k] + shift[k]       k = 0 ... OW * C - 1

images (N, H, W * C) and out (M, OH, OW * C): a row of pixels is one run of bytes whose channels take turns, and so do those of scale and
shift (OW * C), so that the loop over k is a vector's, whatever C is. Rows that are mirrored or reach outside are first put into `row`.

The kernels are serial and do not hold Python's lock: loader threads run them side by side and never enter a parallel region.
"""

from __future__ import annotations

import numpy as np

from numbanet.backends.contract.image import check_images_of_windows
from numbanet.backends.cpu.compile import kernel, worker
from numbanet.backends.cpu.memory import allocator
from numbanet.backends.cpu.registry import implements


@worker(inline=True)
def held(x, limit):
    """x within 0 .. limit, 0 for NaN."""
    x = x if x > 0.0 else 0.0
    return x if x < limit else limit


@kernel("void(const u1[:,:,:,::1], const f8[:,:,:], const T[:], const T[:], T[:,:,:,:])")
def images_affine_normalize_bilinear(padded, matrices, scale, shift, out):
    N, OH, OW, C = out.shape
    last_x, last_y = np.float64(padded.shape[2] - 2), np.float64(padded.shape[1] - 2)
    for n in range(N):
        step_x, step_y = matrices[n, 0, 0], matrices[n, 1, 0]
        for i in range(OH):
            x_begin = matrices[n, 0, 1] * i + matrices[n, 0, 2] + 1.0
            y_begin = matrices[n, 1, 1] * i + matrices[n, 1, 2] + 1.0
            for c in range(C):
                factor, offset = scale[c], shift[c]
                for j in range(OW):
                    x, y = held(x_begin + step_x * j, last_x), held(y_begin + step_y * j, last_y)
                    left, top = np.int64(x), np.int64(y)
                    right, down = np.float32(x - np.floor(x)), np.float32(y - np.floor(y))
                    a, b = np.float32(padded[n, top, left, c]), np.float32(padded[n, top, left + 1, c])
                    d, e = np.float32(padded[n, top + 1, left, c]), np.float32(padded[n, top + 1, left + 1, c])
                    above, below = a + right * (b - a), d + right * (e - d)
                    out[n, i, j, c] = (above + down * (below - above)) * factor + offset


@implements
def images_affine_normalize(images, matrices, output_size, mean, std, out):
    images = images[..., None] if images.ndim == 3 else images
    N, H, W, C = images.shape
    padded = allocator.empty((N, H + 3, W + 3, C), images.dtype)
    padded[:, 0] = padded[:, H + 1:] = 0
    padded[:, :, 0] = padded[:, :, W + 1:] = 0
    padded[:, 1:H + 1, 1:W + 1] = images
    std, mean = np.array(std), np.array(mean)
    images_affine_normalize_bilinear(padded, matrices, (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32),
                                     out.transpose(0, 2, 3, 1))


@worker
def fill_row(images, n, y, left, begin, end, mirrored, C, row):
    """Columns begin ... end of a window's row that starts at `left`, mirrored or not; the others of `row` are 0."""
    OW = len(row) // C
    if end - begin < OW:
        row[:] = 0
    source = images[n, y, (left + begin) * C:(left + end) * C]
    if not mirrored:
        row[begin * C:end * C] = source
    elif C == 3:        # unsigned positions need no test for negative ones: several times as fast as the loop below
        last = OW - 1 - begin
        for j in range(end - begin):
            s, t = np.uint64(3 * j), np.uint64(3 * (last - j))
            row[t], row[t + np.uint64(1)], row[t + np.uint64(2)] = source[s], source[s + np.uint64(1)], source[s + np.uint64(2)]
    else:
        for j in range(end - begin):
            for c in range(C):
                row[(OW - 1 - begin - j) * C + c] = source[j * C + c]


@kernel("void(const u1[:,:,::1], const i8[:,:], i8, const T[::1], const T[::1], u1[::1], T[:,:,::1])")
def images_crop_normalize_rows(images, windows, C, scale, shift, row, out):
    H, W, OW, count = images.shape[1], images.shape[2] // C, out.shape[2] // C, out.shape[2]
    for m in range(out.shape[0]):
        n, top, left, mirrored = windows[m, 0], windows[m, 1], windows[m, 2], windows[m, 3] != 0
        begin = max(0, -left)
        end = min(OW, W - left)
        whole = begin == 0 and end == OW and not mirrored
        for i in range(out.shape[1]):
            y = top + i
            if y < 0 or y >= H or begin >= end:
                for k in range(count):
                    out[m, i, k] = shift[k]
            elif whole:
                source = images[n, y, left * C:left * C + count]
                for k in range(count):
                    out[m, i, k] = np.float32(source[k]) * scale[k] + shift[k]
            else:
                fill_row(images, n, y, left, begin, end, mirrored, C, row)
                for k in range(count):
                    out[m, i, k] = np.float32(row[k]) * scale[k] + shift[k]


@implements
def images_crop_normalize(images, windows, output_size, mean, std, out):
    images = images[..., None] if images.ndim == 3 else images
    N, H, W, C = images.shape
    (OH, OW), M = output_size, len(windows)
    check_images_of_windows(windows, N)
    if not out.size:
        return
    if not images[:1, :1].flags.c_contiguous:
        images = np.ascontiguousarray(images)
    # Further away nothing changes, and sums of larger numbers could overflow.
    windows = np.stack([windows[:, 0], windows[:, 1].clip(-OH, H), windows[:, 2].clip(-OW, W), windows[:, 3]], 1)
    rows = out.transpose(0, 2, 3, 1)                                                    # (M, OH, OW, C)
    target = rows if rows.flags.c_contiguous else allocator.empty(rows.shape, out.dtype)
    std, mean = np.array(std), np.array(mean)
    scale, shift = (np.tile(values.astype(np.float32), OW) for values in (1 / (255 * std), -mean / std))
    images_crop_normalize_rows(images.reshape(N, H, W * C), windows, C, scale, shift, np.empty(OW * C, np.uint8),
                               target.reshape(M, OH, OW * C))
    if target is not rows:
        rows[...] = target


@kernel("void(const T[::1], T[::1])", dtypes=("uint8",))
def images_rgbx_to_rgb_bytes(rgbx, rgb):
    for i in range(len(rgb) // 3):
        s, t = np.uint64(4 * i), np.uint64(3 * i)       # unsigned, as in fill_row
        rgb[t], rgb[t + np.uint64(1)], rgb[t + np.uint64(2)] = rgbx[s], rgbx[s + np.uint64(1)], rgbx[s + np.uint64(2)]


@implements
def images_rgbx_to_rgb(images, out):
    if not out.size:
        return
    target = out if out.flags.c_contiguous else allocator.empty(out.shape, out.dtype)
    images_rgbx_to_rgb_bytes(np.ascontiguousarray(images).reshape(-1), target.reshape(-1))
    if target is not out:
        out[...] = target
