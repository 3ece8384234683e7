"""Cases of matrix products and the linear layer."""

import numbanet.ops.linear as linear
from tests.cases.case import OperationCase, PrimitiveCase, floats, integers, strided


def _torch(function, **options):
    def run(*tensors):
        import torch
        return getattr(torch.nn.functional if function == "linear" else torch, function)(*tensors, **options)
    return run


def _case(label, function, *shapes, float32_tolerance=1e-5, **options):
    operation = linear.Linear if function in ("linear", "inner") else linear.MatMul
    return OperationCase(f"{function}-{label}", (operation,), lambda *t: getattr(linear, function)(*t, **options),
                         lambda rng: tuple(floats(rng, *s, dtype=float) for s in shapes), _torch(function, **options),
                         float32_tolerance=float32_tolerance)


def _linear_relu(x, weight, bias):
    import torch
    return torch.relu(torch.nn.functional.linear(x, weight, bias))


OPERATION_CASES = [
    OperationCase("linear_relu", (linear.LinearReLU,), linear.linear_relu,
                  lambda rng: tuple(floats(rng, *s, dtype=float) for s in ((2, 3, 5), (4, 5), (4,))), _linear_relu),
    _case("bias", "linear", (5, 7), (3, 7), (3,)),
    _case("no-bias-rank-3", "linear", (2, 3, 5), (4, 5)),
    _case("rank-1", "linear", (5,), (4, 5), (4,)),
    _case("matrices", "matmul", (3, 5), (5, 4)),
    _case("broadcast-batch", "matmul", (2, 1, 3, 4), (3, 4, 2)),
    _case("batch-by-matrix", "matmul", (2, 3, 4), (4, 5)),
    _case("vector-left", "matmul", (4,), (2, 4, 3)),
    _case("vector-right", "matmul", (2, 3, 4), (4,)),
    _case("vectors", "dot", (5,), (5,), float32_tolerance=1e-4),           # the sum nearly cancels
    _case("batch", "bmm", (2, 3, 4), (2, 4, 5)),
    _case("rank-2-and-1", "inner", (2, 3), (3,)),
    _case("vectors", "outer", (3,), (4,)),
    _case("scaled", "addmm", (4,), (3, 5), (5, 4), beta=0.5, alpha=2),
]


def _transposed(rng, *shape):
    return integers(rng, *shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2)


def _primitives(label, M, I, O, layout=lambda x: x, large=False):
    def operand(rng, *shape):
        return layout(integers(rng, *shape))
    return [
        PrimitiveCase("linear_forward", lambda r: (operand(r, M, I), operand(r, O, I), operand(r, O)), exact=True,
                      label=label, large=large),
        PrimitiveCase("linear_forward", lambda r: (operand(r, M, I), operand(r, O, I), None), exact=True,
                      label=f"{label}-no-bias", large=large),
        PrimitiveCase("linear_backward_input", lambda r: (operand(r, M, O), operand(r, O, I)), exact=True, label=label, large=large),
        PrimitiveCase("linear_backward_weight", lambda r: (operand(r, M, O), operand(r, M, I)), exact=True,
                      label=label, large=large),
        PrimitiveCase("linear_backward_bias", lambda r: (operand(r, M, O),), exact=True, label=label, large=large),
    ]


PRIMITIVE_CASES = [
    *_primitives("odd", 33, 37, 19, large=True),
    *_primitives("small", 7, 11, 5),
    *_primitives("large", 130, 150, 70, large=True),
    *_primitives("one", 1, 1, 1),
    *_primitives("strided", 9, 18, 10, strided),
    *_primitives("empty-batch", 0, 5, 3),
    *_primitives("no-features", 4, 0, 3),
    PrimitiveCase("matmul", lambda r: (integers(r, 17, 33), integers(r, 33, 35)), exact=True, label="matrices", large=True),
    PrimitiveCase("matmul", lambda r: (_transposed(r, 17, 33), _transposed(r, 33, 35)), exact=True, label="transposed",
                  large=True),
    PrimitiveCase("matmul", lambda r: (_transposed(r, 7, 5), _transposed(r, 5, 8)), exact=True, label="small-transposed"),
    PrimitiveCase("matmul", lambda r: (integers(r, 3, 1, 5, 7), integers(r, 2, 7, 18)), exact=True, label="broadcast"),
    PrimitiveCase("matmul", lambda r: (strided(integers(r, 2, 3, 5, 7)), integers(r, 7, 6)), exact=True,
                  label="batch-by-matrix"),
    PrimitiveCase("matmul", lambda r: (integers(r, 0, 5, 7), integers(r, 7, 6)), exact=True, label="no-batch"),
    PrimitiveCase("matmul", lambda r: (integers(r, 4, 0), integers(r, 0, 6)), exact=True, label="no-depth"),
]
