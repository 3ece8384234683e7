"""The three passes as plain loops, for float64: what gradient checks run. Letters: `walk.py`.

    y[n, k, oh, ow] = bias[k] + sum over c, r, s of x[n, g(k) * Cg + c, h, w] * weight[k, c, r, s]
    h = oh * stride_h + r * dilation_h - pad_h,  w likewise; windows are clipped to x
"""

from __future__ import annotations

from numbanet.backends.cpu.compile import kernel


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], const T[:], T[:,:,:,:], const i8[::1])", dtypes=("float64",))
def conv2d_forward_plain(x, weight, bias, y, walk):
    """Channels first; an empty bias adds nothing."""
    Cg, Kg, _, H, W, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW = walk
    for n in range(y.shape[0]):
        for k in range(y.shape[1]):
            c0 = k // Kg * Cg
            for oh in range(OH):
                for ow in range(OW):
                    total = bias[k] if bias.size else 0.0
                    for c in range(Cg):
                        for r in range(R):
                            h = oh * stride_h + r * dilation_h - pad_h
                            if 0 <= h < H:
                                for s in range(S):
                                    w = ow * stride_w + s * dilation_w - pad_w
                                    if 0 <= w < W:
                                        total += x[n, c0 + c, h, w] * weight[k, c, r, s]
                    y[n, k, oh, ow] = total


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], const i8[::1])", dtypes=("float64",))
def conv2d_backward_input_plain(grad_y, weight, grad_x, walk):
    Cg, Kg, _, H, W, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW = walk
    for n in range(grad_x.shape[0]):
        for c in range(grad_x.shape[1]):
            for h in range(H):
                for w in range(W):
                    grad_x[n, c, h, w] = 0.0
        for k in range(grad_y.shape[1]):
            c0 = k // Kg * Cg
            for c in range(Cg):
                for r in range(R):
                    for s in range(S):
                        factor = weight[k, c, r, s]
                        for oh in range(OH):
                            h = oh * stride_h + r * dilation_h - pad_h
                            if 0 <= h < H:
                                for ow in range(OW):
                                    w = ow * stride_w + s * dilation_w - pad_w
                                    if 0 <= w < W:
                                        grad_x[n, c0 + c, h, w] += grad_y[n, k, oh, ow] * factor


@kernel("void(const T[:,:,:,:], const T[:,:,:,:], T[:,:,:,:], const i8[::1])", dtypes=("float64",))
def conv2d_backward_weight_plain(grad_y, x, grad_weight, walk):
    Cg, Kg, _, H, W, R, S, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, OH, OW = walk
    for k in range(grad_y.shape[1]):
        c0 = k // Kg * Cg
        for c in range(Cg):
            for r in range(R):
                for s in range(S):
                    total = 0.0
                    for n in range(grad_y.shape[0]):
                        for oh in range(OH):
                            h = oh * stride_h + r * dilation_h - pad_h
                            if 0 <= h < H:
                                for ow in range(OW):
                                    w = ow * stride_w + s * dilation_w - pad_w
                                    if 0 <= w < W:
                                        total += grad_y[n, k, oh, ow] * x[n, c0 + c, h, w]
                    grad_weight[k, c, r, s] = total
