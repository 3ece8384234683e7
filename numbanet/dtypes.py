"""Element types. A dtype is a NumPy dtype object, as in JAX and CuPy, so no conversion stands at the border.

Promotion follows PyTorch: the category (bool < integer < float) of tensors with dimensions decides before zero-dimensional
ones, and Python scalars are weak (they never widen a tensor's dtype inside its category).
"""

from __future__ import annotations

from math import e, inf, nan, pi  # noqa: F401  numbanet.pi, as torch.pi

import numpy as np

float64 = double = np.dtype(np.float64)
float32 = np.dtype(np.float32)
float16 = half = np.dtype(np.float16)
int64 = long = np.dtype(np.int64)
int32 = np.dtype(np.int32)
uint8 = np.dtype(np.uint8)
bool = bool_ = np.dtype(np.bool_)   # shadows the builtin on purpose: numbanet.bool, as torch.bool

_default = float32
_FLOAT_NAMES = ("float16", "bfloat16", "float32", "float64")
_NAMES = {"float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32"}


def __getattr__(name):
    if name == "bfloat16":      # ml_dtypes is imported by those who use it
        import ml_dtypes
        globals()["bfloat16"] = np.dtype(ml_dtypes.bfloat16)
        return globals()["bfloat16"]
    if name in ("float", "int"):    # numbanet.float and numbanet.int; within this module these are the builtins
        return as_dtype(_NAMES[name])
    raise AttributeError(f"module 'numbanet.dtypes' has no attribute {name!r}")


def as_dtype(value) -> np.dtype:
    """The dtype that `value` names: a NumPy dtype or type, a string, or Python's float, int and bool."""
    if isinstance(value, np.dtype):
        return value
    if value is float:
        return get_default_dtype()
    if value is int:
        return int64
    name = str(value).rpartition(".")[2]
    name = _NAMES.get(name, name)
    if name == "bfloat16":
        return __getattr__(name)
    from numbanet.errors import DTypeError
    try:
        return np.dtype(name if isinstance(value, str) or name in _FLOAT_NAMES else value)
    except TypeError:
        raise DTypeError(f"dtype: {value!r} is not a dtype of numbanet; use one of float32, float64, float16, bfloat16, "
                         "int64, int32, uint8, bool") from None


def is_floating_point(dtype: np.dtype) -> np.bool_:
    """True for float16, bfloat16, float32, float64."""
    kind = dtype.kind
    return kind == "f" or (kind == "V" and dtype.name == "bfloat16")


def get_default_dtype() -> np.dtype:
    """The floating-point dtype that factories and Python floats take: float32 unless changed."""
    return _default


def set_default_dtype(dtype) -> None:
    """Set what :func:`get_default_dtype` returns; only float32 and float64."""
    global _default
    dtype = as_dtype(dtype)
    if dtype not in (float32, float64):
        from numbanet.errors import DTypeError
        raise DTypeError(f"set_default_dtype: expected float32 or float64, received {dtype}")
    _default = dtype


def _category(dtype) -> int:
    return 0 if dtype.kind == "b" else 2 if is_floating_point(dtype) else 1


def promote(first: np.dtype, second: np.dtype) -> np.dtype:
    """The smallest dtype of torch's lattice that holds both; an integer never widens a float."""
    if first == second:
        return first
    a, b = _category(first), _category(second)
    if a != b:
        return first if a > b else second
    if first.name == "bfloat16" or second.name == "bfloat16":
        other = second if first.name == "bfloat16" else first
        return float32 if other == float16 else other
    return np.promote_types(first, second)


def scalar_dtype(value) -> np.dtype:
    """The weak dtype of a Python scalar."""
    if value is True or value is False:
        return globals()["bool"]
    return int64 if isinstance(value, (int, np.integer)) else get_default_dtype()


def result_type(*operands) -> np.dtype:
    """The dtype of an elementwise result. Operands have `.dtype` and `.shape`, or are Python scalars.

    Tensors with dimensions come first; zero-dimensional ones and then Python scalars count only where their category
    (bool < integer < float) is higher.
    """
    groups = ([], [], [])
    for operand in operands:
        dtype = getattr(operand, "dtype", None)
        if dtype is None:
            groups[2].append(scalar_dtype(operand))
        else:
            groups[0 if operand.shape else 1].append(dtype)
    result = None
    for group in groups:
        if not group:
            continue
        joined = group[0]
        for dtype in group[1:]:
            joined = promote(joined, dtype)
        if result is None or _category(joined) > _category(result):
            result = joined
    return result
