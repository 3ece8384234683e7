"""Convolution and transposed convolution."""

from __future__ import annotations

from numbanet.onnx.export.registry import translates


def pads(padding) -> list[int]:
    """Pairs (before, after) in ONNX's order: all befores, then all afters."""
    return [before for before, _ in padding] + [after for _, after in padding]


def _window(geometry) -> dict:
    return {"kernel_shape": geometry.kernel_size, "strides": geometry.stride, "pads": pads(geometry.padding),
            "dilations": geometry.dilation, "group": geometry.groups}


@translates("conv2d_forward")
def conv2d(b, x, weight, bias, geometry):
    return b.node("Conv", x, weight, bias, **_window(geometry))


@translates("conv2d_backward_input")
def conv_transpose2d(b, grad_y, weight, geometry):
    return b.node("ConvTranspose", grad_y, weight, output_padding=geometry.unread(), **_window(geometry))
