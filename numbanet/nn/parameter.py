"""Parameter and Buffer: tensors that a module registers when they are assigned to it."""

from __future__ import annotations

from numbanet._tensor import Tensor, tensor
from numbanet.errors import DTypeError


class Parameter(Tensor):
    """A tensor that is trained: a module it is assigned to lists it in `parameters()`.

    Parameters
    ----------
    data : Tensor, or what :func:`numbanet.tensor` takes; a tensor's memory is shared
    requires_grad : bool
    """

    __slots__ = ()

    def __init__(self, data, requires_grad: bool = True):
        data = data if isinstance(data, Tensor) else tensor(data)
        if requires_grad and not data.is_floating_point():
            raise DTypeError(f"Parameter: expected a floating-point tensor, received {data.dtype}; "
                             "pass requires_grad=False or register it as a buffer")
        self._set(data.array, data.backend, data.storage, requires_grad)

    def __deepcopy__(self, memo):
        # As in PyTorch the copy has no gradient, unlike that of a plain tensor.
        if id(self) not in memo:
            memo[id(self)] = type(self)(Tensor._wrap(self.backend.copy(self.array), self.backend), self.requires_grad)
        return memo[id(self)]

    def __repr__(self):
        return f"Parameter containing:\n{super().__repr__()}"

    __str__ = __repr__


class Buffer(Tensor):
    """A tensor that belongs to a module's state but is not trained, such as running statistics.

    `persistent` says whether it is part of the `state_dict`.
    """

    __slots__ = ("persistent",)

    def __init__(self, data, persistent: bool = True):
        data = data if isinstance(data, Tensor) else tensor(data)
        self._set(data.array, data.backend, data.storage)
        self.persistent = persistent
