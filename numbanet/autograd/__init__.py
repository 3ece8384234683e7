"""Automatic differentiation by a recorded tape."""

from numbanet.autograd.function import Function, FunctionContext
from numbanet.autograd.grad_mode import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from numbanet.autograd.gradient_check import gradient_check
from numbanet.autograd.operation import Operation, Record
from numbanet.autograd.tape import backward, grad

__all__ = [
    "Function", "FunctionContext", "Operation", "Record", "backward", "enable_grad", "grad", "gradient_check",
    "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled",
]
