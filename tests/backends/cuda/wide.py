"""Wide launches against those of single elements, bit for bit: a part of `simulated.py`, and of `test_executed.py`."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet import dtypes
from numbanet.backends import PRIMITIVES, get_backend
from numbanet.backends.contract.elementwise_chain import VALUE, Place
from numbanet.backends.cuda import implements, lists, load_families, wide
from numbanet.backends.cuda.launch import compiled
from numbanet.geometry import pool_geometry
from tests.backends import agreement
from tests.backends.agreement import outputs
from tests.cases.case import channels_last

load_families()
BFLOAT16, FLOAT16 = dtypes.as_dtype("bfloat16"), dtypes.as_dtype("float16")
KEY = (2**64 - 5, 2**33 + 7)
GRADIENT = "loss.classification.classification_gradient"
BATCH_NORM_GRADIENT = "normalization.batch.batch_norm_gradient normalization.batch.batch_norm_gradient_sums"
LOCAL = "normalization.local_response.local_response_norm"
POOL = pool_geometry((5, 7), (3, 3), 2, 1)


def _maps(rng, *shape, dtype=np.float32) -> np.ndarray:
    """Channels-last values with NaN, infinities and equal ones among them."""
    x = np.round(rng.standard_normal(shape) * 4).astype(np.float32) / 4
    x.flat[::97], x.flat[5::89] = np.nan, -np.inf
    return channels_last(x.astype(dtype))


def _rows(rng, *shape, dtype=np.float32) -> np.ndarray:
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def _channels(rng, count: int) -> np.ndarray:
    return rng.uniform(0.5, 2, count).astype(np.float32)


def _normalised(rng, dtype=np.float32, channels: int = 16):
    return channels_last(rng.standard_normal((3, channels, 5, 7)).astype(dtype)), [_channels(rng, channels) for _ in range(4)]


def _fused(rng, y: bool, dtype=np.float32):
    x, (weight, bias, mean, variance) = _normalised(rng, dtype)
    grad_y, y = _maps(rng, *x.shape, dtype=dtype), _maps(rng, *x.shape, dtype=dtype) if y else None
    return grad_y, y, x, weight, bias, mean, variance, 1e-5, 0.0, 6.0


def _parameters(rng, states: int) -> list[list[np.ndarray]]:
    """Of the sizes 24, 5 and 16: two can be read in pieces, the one between them cannot."""
    return [[np.abs(rng.standard_normal(shape)).astype(np.float32) for shape in ((6, 4), (5,), (2, 8))] for _ in range(2 + states)]


def _images(rng, height: int, width: int, *channels: int) -> list[np.ndarray]:
    """uint8 images, and windows within them, across a border, mirrored, and of nothing."""
    windows = np.array([[0, 1, 2, 0], [1, -2, 3, 1], [1, 5, -1, 0], [0, 2, 1, 7], [1, 2**40, 0, 0]])
    return [rng.integers(0, 256, (2, height, width, *channels), np.uint8), windows]


# (primitive, its arguments from a generator, the kernels that have to be wide)
CASES = [
    ("relu_forward", lambda r: [_maps(r, 3, 4, 5, 7)], "pointwise.unary_relu"),
    ("relu_forward", lambda r: [_maps(r, 3, 8, 5, 7, dtype=BFLOAT16)], "pointwise.unary_relu"),
    ("relu_forward", lambda r: [_maps(r, 3, 8, 5, 7, dtype=FLOAT16)], "pointwise.unary_relu"),
    ("gelu_forward", lambda r: [_maps(r, 3, 4, 5, 7), "none"], "pointwise.unary_gelu"),
    ("relu_backward_input", lambda r: [_maps(r, 2, 4, 5, 3), _maps(r, 2, 4, 5, 3)], "pointwise.binary_relu_backward"),
    ("leaky_relu_backward_input", lambda r: [_maps(r, 2, 4, 5, 3), _maps(r, 2, 4, 5, 3), 0.1], "pointwise.binary_with_leaky_relu_backward"),
    ("add", lambda r: [_maps(r, 2, 4, 5, 3), _maps(r, 4, 1, 1)], "pointwise.binary_add"),
    ("multiply", lambda r: [_maps(r, 2, 4, 5, 3), 3.0], "pointwise.binary_right_multiply"),
    ("subtract", lambda r: [3.0, _maps(r, 2, 4, 5, 3)], "pointwise.binary_left_subtract"),
    ("less", lambda r: [_maps(r, 2, 4, 5, 3), _maps(r, 2, 4, 5, 3)], "pointwise.binary_less"),
    ("elementwise_chain", lambda r: [_maps(r, 2, 4, 5, 3), [_maps(r, 2, 1, 1, 1), _maps(r, 4, 1, 1), _maps(r, 2, 4, 5, 3)],
                                     (("multiply", VALUE, Place(1)), ("subtract", Place(2), VALUE), ("multiply", VALUE, 0.3),
                                      ("silu_backward_input", VALUE, Place(3)), ("maximum", Place(0), VALUE))],
     "elementwise_chain.interpreted"),
    ("elementwise_chain", lambda r: [_maps(r, 2, 8, 5, 3, dtype=BFLOAT16), [_rows(r, 2, 8, 1, 1, dtype=BFLOAT16)],
                                     (("sigmoid_forward", VALUE), ("multiply", VALUE, Place(1)))], "elementwise_chain.interpreted"),
    ("where", lambda r: [_maps(r, 2, 4, 5, 3) > 0, _maps(r, 2, 4, 5, 3), 2.0], "elementwise.choose_kernel"),
    ("clamp", lambda r: [_maps(r, 2, 4, 5, 3), -1.0, None], "elementwise.clamp_kernel"),
    ("full", lambda r: [(3, 8), 2.5, np.dtype(np.float32)], "elementwise.full_kernel"),
    ("cast", lambda r: [_maps(r, 2, 8, 5, 3), BFLOAT16], "pointwise.cast_kernel"),
    ("cast", lambda r: [_maps(r, 2, 8, 5, 3, dtype=FLOAT16), np.dtype(np.float32)], "pointwise.cast_kernel"),
    ("cast", lambda r: [np.arange(24).reshape(3, 8), np.dtype(np.float32)], "pointwise.cast_kernel"),
    ("concatenate", lambda r: [[_maps(r, 2, 4, 5, 3), _maps(r, 2, 8, 5, 3)], 1], "pointwise.cast_kernel"),
    ("sum", lambda r: [_maps(r, 3, 8, 5, 7), (0, 2, 3), False], "reduction.fold_sum"),
    ("sum", lambda r: [_maps(r, 4, 8, 8, 8), (0, 1, 2, 3), False], "reduction.fold_sum"),
    ("max_reduce", lambda r: [_maps(r, 3, 8, 5, 7), (2, 3), False], "reduction.fold_larger"),
    ("batch_norm_forward", lambda r: [(n := _normalised(r))[0], *n[1][:2], 1e-5],
     "normalization.batch.batch_norm_apply normalization.moments.moments_of_parts"),
    ("batch_norm_forward", lambda r: [(n := _normalised(r, BFLOAT16))[0], *n[1][:2], 1e-5],
     "normalization.batch.batch_norm_apply normalization.moments.moments_of_parts"),
    ("batch_norm_inference_forward", lambda r: [(n := _normalised(r))[0], *n[1], 1e-5], "normalization.batch.batch_norm_apply"),
    ("batch_norm_backward", lambda r: [_maps(r, 3, 16, 5, 7), (n := _normalised(r))[0], *n[1][1:], 1e-5],
     BATCH_NORM_GRADIENT),
    ("batch_norm_fused_forward", lambda r: [(n := _normalised(r))[0], *n[1][:2], _maps(r, 3, 16, 5, 7), 1e-5, 0.0, 6.0],
     "normalization.batch.batch_norm_apply normalization.moments.moments_of_parts"),
    ("batch_norm_fused_backward", lambda r: _fused(r, True), BATCH_NORM_GRADIENT),
    ("batch_norm_fused_backward", lambda r: _fused(r, False), BATCH_NORM_GRADIENT),
    ("batch_norm_fused_backward", lambda r: _fused(r, True, BFLOAT16), BATCH_NORM_GRADIENT),
    ("batch_norm_fused_backward", lambda r: _fused(r, False, FLOAT16), BATCH_NORM_GRADIENT),
    ("batch_norm_given_forward", lambda r: [(n := _normalised(r))[0], *n[1][:2], _maps(r, 3, 16, 5, 7), *n[1][2:], 1e-5, 0.0, None],
     "normalization.batch.batch_norm_apply"),
    ("channel_affine", lambda r: [_maps(r, 3, 8, 5, 7), _channels(r, 8), _channels(r, 8), 0.0, None], "fused.channel_affine_kernel"),
    ("max_pool2d_forward", lambda r: [_maps(r, 2, 8, 5, 7), POOL], "pooling.max_pool2d"),
    ("max_pool2d_forward", lambda r: [_maps(r, 2, 8, 5, 7, dtype=BFLOAT16), POOL], "pooling.max_pool2d"),
    ("max_pool2d_values", lambda r: [_maps(r, 2, 8, 5, 7), POOL], "pooling.max_pool2d_without_positions"),
    ("max_pool2d_backward_input", lambda r: [_maps(r, 2, 8, 3, 4), channels_last(r.integers(0, 35, (2, 8, 3, 4)).astype(np.int32)), POOL],
     "pooling.max_pool2d_backward"),
    ("avg_pool2d_forward", lambda r: [_maps(r, 2, 8, 5, 7), POOL, True, None], "pooling.avg_pool2d"),
    ("avg_pool2d_backward_input", lambda r: [_maps(r, 2, 8, 3, 4), POOL, False, None], "pooling.avg_pool2d_backward"),
    ("adaptive_max_pool2d_forward", lambda r: [_maps(r, 2, 8, 5, 7), (3, 2)], "pooling.adaptive_max_pool2d"),
    ("adaptive_max_pool2d_backward_input",
     lambda r: [_maps(r, 2, 8, 3, 2), channels_last(r.integers(0, 35, (2, 8, 3, 2)).astype(np.int32)), (5, 7)],
     "pooling.adaptive_max_pool2d_backward"),
    ("adaptive_avg_pool2d_forward", lambda r: [_maps(r, 2, 8, 5, 7), (1, 1)], "pooling.adaptive_avg_pool2d"),
    ("adaptive_avg_pool2d_backward_input", lambda r: [_maps(r, 2, 8, 1, 1), (5, 7)], "pooling.adaptive_avg_pool2d_backward"),
    ("elementwise_loss_forward", lambda r: [_rows(r, 3, 8), _rows(r, 3, 8), None, _rows(r, 8), "bce_with_logits", 1.0, "none"],
     "loss.elementwise.elementwise_loss_bce_with_logits"),
    ("elementwise_loss_backward_input", lambda r: [_rows(r), _rows(r, 3, 8), _rows(r, 3, 8), _rows(r, 8), None, "huber", 0.5, "mean"],
     "loss.elementwise.elementwise_loss_backward_huber_slope"),
    ("softmax_forward", lambda r: [_rows(r, 3, 48), 1], "softmax.softmax"),
    ("softmax_forward", lambda r: [np.broadcast_to(_rows(r, 3, 1), (3, 48)), 1], "softmax.softmax"),
    ("log_softmax_forward", lambda r: [_rows(r, 3, 48, dtype=BFLOAT16), 1], "softmax.softmax"),
    ("softmax_backward_input", lambda r: [_rows(r, 3, 48), _rows(r, 3, 48), 1], "softmax.softmax_backward"),
    ("softmax_cross_entropy_forward", lambda r: [_rows(r, 3, 48), np.array([47, 0, 5]), None, -100, 0.0, "none"],
     "loss.classification.softmax_cross_entropy"),
    ("softmax_cross_entropy_forward", lambda r: [_rows(r, 3, 48), np.array([47, 0, 5]), _channels(r, 48), 5, 0.1, "mean"],
     "loss.classification.softmax_cross_entropy"),
    ("softmax_cross_entropy_backward_input",
     lambda r: [_rows(r), _rows(r, 3, 48), np.array([47, -100, 5]), None, _rows(r), -100, 0.0, "mean"], GRADIENT),
    ("softmax_cross_entropy_backward_input",
     lambda r: [_rows(r, 4, dtype=BFLOAT16), _rows(r, 4, 16, dtype=BFLOAT16), np.array([15, 16, 5, 0]), None,
                _rows(r, dtype=BFLOAT16), 5, 0.1, "none"], GRADIENT),
    ("softmax_cross_entropy_backward_input",
     lambda r: [_rows(r, 2, 3), _maps(r, 2, 8, 3), r.integers(0, 8, (2, 3)), _channels(r, 8), _rows(r), 5, 0.1, "none"], GRADIENT),
    ("nll_loss_backward_input", lambda r: [_rows(r), np.array([7, 3, 9]), _channels(r, 12), _rows(r), (3, 12), 9, "mean"], GRADIENT),
    ("layer_norm_forward", lambda r: [_rows(r, 3, 2, 24), 2, _rows(r, 2, 24), _rows(r, 2, 24), 1e-5], "normalization.rows.row_norm"),
    ("layer_norm_backward", lambda r: [_rows(r, 3, 48), _rows(r, 3, 48), _rows(r, 48), _channels(r, 3), _channels(r, 3), 1, 1e-5],
     "normalization.rows.row_norm_backward normalization.gradients.affine_gradients"),
    ("group_norm_forward", lambda r: [_normalised(r)[0], 2, _channels(r, 16), _channels(r, 16), 1e-5], "normalization.rows.row_norm"),
    ("local_response_norm_forward", lambda r: [_maps(r, 2, 8, 2, 3), 5, 0.5, 0.75, 1.0], LOCAL),
    ("local_response_norm_forward", lambda r: [_maps(r, 2, 16, 2, 3, dtype=BFLOAT16), 4, 0.5, 0.75, 1.0], LOCAL),
    ("local_response_norm_backward_input", lambda r: [_maps(r, 2, 12, 2, 3), _maps(r, 2, 12, 2, 3), 4, 0.5, 0.75, 1.0],
     f"{LOCAL}_backward {LOCAL}_neighbours"),
    ("local_response_norm_backward_input", lambda r: [_maps(r, 2, 12, 1, 3), _maps(r, 2, 12, 1, 3), 11, 0.5, 0.75, 2.0],
     f"{LOCAL}_backward {LOCAL}_neighbours"),
    ("dropout", lambda r: [_rows(r, 3, 8), 0.4, KEY], "random.dropout_kernel"),
    ("dropout", lambda r: [_rows(r, 3, 16, dtype=BFLOAT16), 0.4, KEY], "random.dropout_kernel"),
    ("dropout", lambda r: [_maps(r, 2, 8, 5, 7), 0.4, KEY], "random.dropout_kernel"),
    ("dropout", lambda r: [_maps(r, 2, 8, 3, 3, dtype=FLOAT16), 0.4, KEY], "random.dropout_kernel"),
    ("resize2d_nearest_forward", lambda r: [_maps(r, 2, 8, 5, 7), (10, 3), (None, None)], "resample.take_kernel"),
    ("resize2d_bilinear_forward", lambda r: [_maps(r, 2, 8, 5, 7), (10, 3), (None, None), False], "resample.resample_kernel"),
    ("images_crop_normalize", lambda r: [*_images(r, 9, 6, 3), (7, 4), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)], "image.crop_kernel"),
    ("images_crop_normalize", lambda r: [*_images(r, 9, 11), (3, 8), (0.4,), (0.2,)], "image.crop_kernel"),
    ("sgd_update", lambda r: [*_parameters(r, 1), 0.1, 0.9, 0.0, 1e-4, True, 1.0], "optimizer.sgd_kernel"),
    ("rmsprop_update", lambda r: [*_parameters(r, 3), 0.1, 0.9, 1e-8, 1e-4, 0.9, 1.0], "optimizer.rmsprop_kernel"),
    ("adam_update", lambda r: [*_parameters(r, 3), 0.1, 0.9, 0.99, 1e-8, 1e-4, True, 3, 1.0], "optimizer.adam_kernel"),
]


def _run(primitive: str, make) -> tuple[list[bytes], set[str]]:
    """(what comes out, the kernels that took pieces)."""
    known = dict(compiled)
    compiled.clear()
    try:
        made = outputs(get_backend("cuda"), PRIMITIVES[primitive], tuple(make(np.random.default_rng(5))))
        return [x.tobytes() for x in made], {kernel.name for kernel, types, *_ in compiled if any("x" in t for t in types if t[0] == "*")}
    finally:
        compiled.update(known)


@pytest.fixture
def single_elements(monkeypatch):
    """A function: from when it is called on, no launch is wide."""
    def switch():
        for module in (wide, lists):
            monkeypatch.setattr(module, "width_of", lambda *arrays: 1 << 20)
    return switch


@pytest.mark.parametrize("primitive, make, kernels", CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_wide_launches_have_the_bits_of_single_elements(primitive, make, kernels, single_elements):
    taken, wide_kernels = _run(primitive, make)
    assert set(kernels.split()) <= wide_kernels
    single_elements()
    single, none = _run(primitive, make)
    assert not none and taken == single


FAMILIES = ("elementwise", "elementwise_chain", "activation", "loss")


@pytest.mark.parametrize("case", [c for c in agreement.CASES if PRIMITIVES[c.primitive].family in FAMILIES
                                  and c.primitive in implements and not c.large], ids=agreement.name_of)
def test_functions_of_elements_have_the_same_bits_either_way(case, single_elements):
    taken, _ = _run(case.primitive, lambda _: agreement.arguments_of(case))
    single_elements()
    assert taken == _run(case.primitive, lambda _: agreement.arguments_of(case))[0]
