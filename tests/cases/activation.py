"""Cases of activations."""

from dataclasses import replace

import numpy as np

import numbanet.ops.activation as activation
from numbanet.backends.contract.activation import SELU_ALPHA, SELU_SCALE
from tests.cases.case import OperationCase, PrimitiveCase, channels_last, floats, strided


def _apart(rng, *shape):
    """Floats at least 0.1 away from the kinks at -3, -1, -0.5, 0, 0.5, 1, 3 and 6 of any activation."""
    grid = np.array([-4.2, -3.4, -2.1, -1.3, -0.7, -0.3, 0.3, 0.7, 1.4, 2.2, 3.5, 5.1, 6.4])
    return rng.choice(grid, shape) + rng.uniform(-0.1, 0.1, shape)


def _case(name, operation, *arguments, function=None, **options):
    function = function or name

    def torch(x):
        import torch.nn.functional
        return getattr(torch.nn.functional, function)(x, *arguments, **options)
    return OperationCase(name, (operation,), lambda x: getattr(activation, function)(x, *arguments, **options),
                         lambda rng: (_apart(rng, 4, 6),), torch)


def _torch_prelu(x, weight):
    import torch.nn.functional
    return torch.nn.functional.prelu(x, weight)


OPERATION_CASES = [
    _case("relu", activation.ReLU), _case("relu6", activation.Hardtanh), _case("hardtanh", activation.Hardtanh, -0.6, 2.0),
    _case("leaky_relu", activation.LeakyReLU, 0.2), _case("leaky_relu-negative", activation.LeakyReLU, -0.2, function="leaky_relu"),
    _case("elu", activation.ELU, 1.3), _case("selu", activation.ELU), _case("celu", activation.ELU, 2.0),
    _case("sigmoid", activation.Sigmoid), _case("tanh", activation.Tanh), _case("silu", activation.SiLU),
    _case("gelu", activation.GELU), _case("gelu-tanh", activation.GELU, function="gelu", approximate="tanh"),
    _case("hardswish", activation.Hardswish),
    # PyTorch holds the slope 1 / 6 in float32, also for float64
    replace(_case("hardsigmoid", activation.Hardsigmoid), torch=None),
    _case("softplus", activation.Softplus), _case("softplus-beta", activation.Softplus, 2.0, 3.0, function="softplus"),
    _case("mish", activation.Mish), _case("logsigmoid", activation.LogSigmoid), _case("softsign", activation.Softsign),
    _case("threshold", activation.ReLU, 0.5, 2.0), _case("hardshrink", activation.ReLU, 0.5), _case("softshrink", activation.ReLU, 0.5),
    _case("tanhshrink", activation.Tanh), _case("glu", activation.Sigmoid), _case("normalize", activation.Sigmoid),
    OperationCase("prelu-channels", (activation.PReLU,), activation.prelu, lambda rng: (_apart(rng, 2, 3, 4, 5), _apart(rng, 3)),
                  _torch_prelu),
    OperationCase("prelu-single", (activation.PReLU,), activation.prelu, lambda rng: (_apart(rng, 2, 3), _apart(rng, 1)), _torch_prelu),
]

SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-40, 90, -90, 30, -30, 3, -3], np.float32)

# name, parameters; each is run on a map of channels, several tasks long, on special values and on memory with gaps
_FORWARD = [("relu", ()), ("hardtanh", (-1.0, 2.0)), ("leaky_relu", (0.1,)), ("elu", (1.3, 1.0)), ("elu", (SELU_ALPHA, SELU_SCALE)),
            ("sigmoid", ()), ("tanh", ()), ("silu", ()), ("gelu", ("none",)), ("gelu", ("tanh",)), ("hardsigmoid", ()), ("hardswish", ()),
            ("softplus", (1.0, 20.0)), ("softplus", (2.0, 3.0)), ("mish", ()), ("log_sigmoid", ()), ("softsign", ())]


def _forward(name, parameters, label):
    def arguments(rng):
        x = {"channels": lambda: channels_last(4 * floats(rng, 3, 6, 43, 44)), "special": lambda: SPECIAL,
             "strided": lambda: strided(floats(rng, 3, 7)), "empty": lambda: floats(rng, 0, 3)}[label]()
        return x, *parameters
    return PrimitiveCase(f"{name}_forward", arguments, label=f"{label}{parameters}", tolerance=2e-6)


def _backward(name, parameters, label):
    def arguments(rng):
        shape = (3, 6, 43, 44) if label == "channels" else (3, 7)
        layout = channels_last if label == "channels" else strided
        saved = floats(rng, *shape) if name in ("sigmoid", "tanh") else 4 * floats(rng, *shape)
        return floats(rng, *shape), layout(saved), *parameters
    return PrimitiveCase(f"{name}_backward_input", arguments, label=f"{label}{parameters}", tolerance=2e-6)


PRIMITIVE_CASES = [
    *[_forward(name, parameters, label) for name, parameters in _FORWARD for label in ("channels", "special")],
    *[_forward(name, parameters, label) for name, parameters in _FORWARD[:2] for label in ("strided", "empty")],
    *[_backward(name, parameters, label) for name, parameters in _FORWARD for label in ("channels", "strided")],
]
