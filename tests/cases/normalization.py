"""Cases of normalization."""

import numpy as np

import numbanet.ops.normalization as normalization
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided


def _case(function, label, operation, shapes, call, reference, tolerance=1e-6):
    def run(*tensors):
        import torch
        return reference(torch.nn.functional, *tensors)
    return OperationCase(f"{function}-{label}", (operation,), call,
                         lambda rng: tuple(floats(rng, *shape, dtype=float) for shape in shapes), run, tolerance)


def _batch(label, shape, affine=True):
    C = shape[1]
    if not affine:
        return _case("batch_norm", label, normalization.BatchNorm, (shape,),
                     lambda x: normalization.batch_norm(x, None, None, training=True),
                     lambda F, x: F.batch_norm(x, None, None, training=True))
    return _case("batch_norm", label, normalization.BatchNorm, (shape, (C,), (C,)),
                 lambda x, w, b: normalization.batch_norm(x, None, None, w, b, True),
                 lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True))


def _running(like, C):
    """Running statistics on the device of `like`: mean 0.1 ... and variance 1 ..."""
    import numbanet
    mean, variance = (numbanet.tensor(v.astype(like.dtype), device=like.device)
                      for v in (np.arange(C) * 0.1, 1 + np.arange(C) * 0.5))
    return mean, variance


def _torch_running(C):
    import torch
    return torch.arange(C).double() * 0.1, 1 + torch.arange(C).double() * 0.5


class _Alone:
    """A group of one process."""

    @staticmethod
    def gather(values):
        return values[None]


OPERATION_CASES = [
    _case("sync_batch_norm", "alone", normalization.SyncBatchNorm, ((3, 4, 3, 2), (4,), (4,)),
          lambda x, w, b: normalization.sync_batch_norm(x, None, None, w, b, 0.1, 1e-5, _Alone),
          lambda F, x, w, b: F.batch_norm(x, None, None, w, b, True)),
    _case("sync_batch_norm", "alone-without-parameters", normalization.SyncBatchNorm, ((6, 3),),
          lambda x: normalization.sync_batch_norm(x, *_running(x, 3), None, None, 0.1, 1e-5, _Alone),
          lambda F, x: F.batch_norm(x, *_torch_running(3), training=True)),
    _batch("maps", (3, 4, 3, 2)),
    _batch("rows", (6, 3)),
    _batch("signal-without-parameters", (3, 5, 4), affine=False),
    _batch("volume", (2, 2, 2, 3, 2)),
    _case("batch_norm", "inference", normalization.BatchNormInference, ((2, 3, 3, 2), (3,), (3,)),
          lambda x, w, b: normalization.batch_norm(x, *_running(x, 3), w, b, False),
          lambda F, x, w, b: F.batch_norm(x, *_torch_running(3), w, b, False)),
    _case("batch_norm", "inference-weight-only", normalization.BatchNormInference, ((2, 3, 4), (3,)),
          lambda x, w: normalization.batch_norm(x, *_running(x, 3), w),
          lambda F, x, w: F.batch_norm(x, *_torch_running(3), w)),
    _case("group_norm", "maps", normalization.GroupNorm, ((2, 6, 3, 2), (6,), (6,)),
          lambda x, w, b: normalization.group_norm(x, 3, w, b), lambda F, x, w, b: F.group_norm(x, 3, w, b)),
    _case("group_norm", "rows", normalization.GroupNorm, ((4, 6),),
          lambda x: normalization.group_norm(x, 2), lambda F, x: F.group_norm(x, 2)),
    _case("instance_norm", "maps", normalization.InstanceNorm, ((2, 3, 4, 3), (3,), (3,)),
          lambda x, w, b: normalization.instance_norm(x, None, None, w, b),
          lambda F, x, w, b: F.instance_norm(x, None, None, w, b)),
    _case("layer_norm", "one-axis", normalization.LayerNorm, ((3, 2, 5), (5,), (5,)),
          lambda x, w, b: normalization.layer_norm(x, 5, w, b), lambda F, x, w, b: F.layer_norm(x, (5,), w, b)),
    _case("layer_norm", "two-axes", normalization.LayerNorm, ((3, 2, 4), (2, 4)),
          lambda x, w: normalization.layer_norm(x, (2, 4), w), lambda F, x, w: F.layer_norm(x, (2, 4), w)),
    *[_case("local_response_norm", f"size-{size}-beta-{beta}", normalization.LocalResponseNorm, ((2, 5, 2, 3),),
            lambda x, size=size, beta=beta: normalization.local_response_norm(x, size, 0.3, beta, 1.5),
            lambda F, x, size=size, beta=beta: F.local_response_norm(x, size, 0.3, beta, 1.5))
      for size, beta in ((3, 0.75), (4, 0.5), (9, 1.3))],
]

# Shapes that fold (few channels, many pixels), that do not (prime number of pixels), and several blocks of rows.
SHAPES = {"few-channels": (4, 6, 14, 14), "prime": (1, 19, 7, 1), "blocks": (3, 33, 29, 17), "rows": (37, 10),
          "one-pixel": (2, 70, 1, 1)}
LAYOUTS = {"channels-last": channels_last, "strided": strided, "row-major": lambda x: x}


def _channel_cases():
    for (label, shape), (layout_name, layout) in zip(SHAPES.items(), [*LAYOUTS.items(), *LAYOUTS.items()]):
        N, C = shape[:2]
        layout = layout if len(shape) > 2 or layout is not channels_last else (lambda x: x)
        groups = next(g for g in (3, 2, 1) if C % g == 0)

        def x_of(rng, shape=shape, layout=layout):
            return layout(floats(rng, *shape) * 2 + 3)

        def vectors(rng, shape=shape):
            C = shape[1]
            return floats(rng, C), floats(rng, C), floats(rng, C), np.abs(floats(rng, C)) + np.float32(0.5)

        def batch(rng, x_of=x_of, vectors=vectors):
            weight, bias, _, _ = vectors(rng)
            return x_of(rng), weight, bias, 1e-5

        def inference(rng, x_of=x_of, vectors=vectors):
            return x_of(rng), *vectors(rng), 1e-3

        def inference_without_parameters(rng, x_of=x_of, vectors=vectors):
            return x_of(rng), None, None, *vectors(rng)[2:], 1e-3

        def backward(rng, x_of=x_of, vectors=vectors, layout=layout, shape=shape):
            weight, _, mean, variance = vectors(rng)
            return layout(floats(rng, *shape)), x_of(rng), weight, mean, variance, 1e-5

        def group(rng, x_of=x_of, vectors=vectors, groups=groups):
            weight, bias, _, _ = vectors(rng)
            return x_of(rng), groups, weight, bias, 1e-5

        def group_backward(rng, x_of=x_of, vectors=vectors, groups=groups, layout=layout, shape=shape):
            mean, variance = floats(rng, shape[0], groups), np.abs(floats(rng, shape[0], groups)) + np.float32(0.5)
            return layout(floats(rng, *shape)), x_of(rng), vectors(rng)[0], mean, variance, groups, 1e-5
        name = f"{label}-{layout_name}"
        if N * C > 2 * C or len(shape) == 4 and shape[2] > 1:
            yield PrimitiveCase("batch_norm_forward", batch, label=name)
            yield PrimitiveCase("group_norm_forward", group, label=name)
        yield PrimitiveCase("batch_norm_inference_forward", inference, label=name)
        yield PrimitiveCase("batch_norm_inference_forward", inference_without_parameters, label=f"{name}-plain")
        yield PrimitiveCase("batch_norm_backward", backward, label=name)
        yield PrimitiveCase("batch_norm_inference_backward", backward, label=name)
        yield PrimitiveCase("group_norm_backward", group_backward, label=name)
        for size, beta in ((5, 0.75), (4, 0.9), (2, 0.5)):
            options = (size, 0.2, beta, 2.0)
            yield PrimitiveCase("local_response_norm_forward", label=f"{name}-{size}",
                                arguments=lambda rng, x_of=x_of, options=options: (x_of(rng), *options))
            yield PrimitiveCase("local_response_norm_backward_input", label=f"{name}-{size}",
                                arguments=lambda rng, x_of=x_of, options=options: (x_of(rng), x_of(rng), *options))


def _layer_cases():
    for label, shape, axes, layout in (("odd", (5, 7, 19), 1, lambda x: x), ("two-axes", (70, 3, 11), 2, strided),
                                       ("one-row", (40,), 1, lambda x: x),
                                       ("permuted", (2, 9, 5, 6), 3, channels_last)):
        def parameters(rng, shape=shape, axes=axes):
            return floats(rng, *shape[-axes:]), floats(rng, *shape[-axes:])

        def forward(rng, shape=shape, axes=axes, layout=layout, parameters=parameters):
            return layout(floats(rng, *shape) + 2), axes, *parameters(rng), 1e-5

        def backward(rng, shape=shape, axes=axes, layout=layout, parameters=parameters):
            mean = floats(rng, *shape[:-axes])
            statistics = mean, np.asarray(np.abs(mean) + np.float32(0.5))
            return layout(floats(rng, *shape)), layout(floats(rng, *shape)), parameters(rng)[0], *statistics, axes, 1e-5
        yield PrimitiveCase("layer_norm_forward", forward, label=label)
        yield PrimitiveCase("layer_norm_backward", backward, label=label)


PRIMITIVE_CASES = [
    *_channel_cases(), *_layer_cases(),
    PrimitiveCase("running_average_update", lambda rng: (floats(rng, 9), floats(rng, 9), 0.1, 1.25)),
    *[PrimitiveCase("running_averages_update", lambda rng, shapes=shapes: (
        [floats(rng, *s) for s in shapes], [floats(rng, *s) for s in shapes], tuple([0.1 + k / 9 for k in range(len(shapes))]),
        tuple([1.0 + k / 7 for k in range(len(shapes))])), label=label)
      for label, shapes in (("several", ((16,), (5,), (0,), (64,))), ("one", ((9,),)), ("none", ()), ("empty", ((0,),)))],
    PrimitiveCase("running_averages_update", lambda rng: ([strided(floats(rng, 8)), floats(rng, 4)], [floats(rng, 8), floats(rng, 4)],
                                                          (0.5, 0.25), (1.0, 2.0)), label="strided"),
    *[PrimitiveCase("counters_update", lambda rng, shapes=shapes: ([np.asarray(rng.integers(0, 2**40, s)) for s in shapes], 3), exact=True,
                    float64=False, label=label)
      for label, shapes in (("several", ((), (), ())), ("none", ()), ("shapes", ((), (5,), (0,))))],
]
