"""Module: the base of every layer and network, with PyTorch's behaviour."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from numbanet import dtypes
from numbanet._tensor import RemovableHandle, Tensor
from numbanet.errors import NumbanetError, UsageError
from numbanet.nn.hooks import BackwardHooks
from numbanet.nn.parameter import Buffer, Parameter
from numbanet.nn.state import StateMixin


class Module(StateMixin):
    """Base of layers and networks.

    A subclass calls ``super().__init__()``, assigns parameters, buffers and other modules to attributes, which
    registers them, and gives `forward`. Calling the module runs the hooks and `forward`.
    """

    training: bool = True
    frozen: bool = False        # stays in evaluation mode; see numbanet.train.freeze
    _hooks: dict[str, OrderedDict] | None = None    # by kind; None as long as no hook was ever registered

    def __init__(self):
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _not_persistent=set())

    def forward(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__}.forward is not defined; a module computes its output there")

    def __call__(self, *args, **kwargs):
        try:
            if self._hooks is None:
                return self.forward(*args, **kwargs)
            return self._call_with_hooks(args, kwargs)
        except NumbanetError as error:
            self._locate(error)
            raise

    def call_as(self, forward: Callable, x):
        """forward(x), a variant of this module's own; errors are located as those of a call."""
        try:
            return forward(x)
        except NumbanetError as error:
            self._locate(error)
            raise

    def _call_with_hooks(self, args: tuple, kwargs: dict):
        hooks = self._hooks
        if not any(hooks.values()):
            self.__dict__["_hooks"] = None          # all were removed: calls are plain again
            return self.forward(*args, **kwargs)
        for hook, with_kwargs in list(hooks["forward_pre"].values()):
            replaced = hook(self, args, kwargs) if with_kwargs else hook(self, args)
            if replaced is not None and with_kwargs:
                args, kwargs = replaced
            elif replaced is not None:
                args = replaced if isinstance(replaced, tuple) else (replaced,)
        boundary = None
        if hooks["backward"] or hooks["backward_pre"]:
            boundary = BackwardHooks(self, hooks["backward_pre"], hooks["backward"])
            args = boundary.wrap_inputs(args)
        result = self.forward(*args, **kwargs)
        for hook, with_kwargs in list(hooks["forward"].values()):
            replaced = hook(self, args, kwargs, result) if with_kwargs else hook(self, args, result)
            result = result if replaced is None else replaced
        return result if boundary is None else boundary.wrap_outputs(result)

    def _locate(self, error: NumbanetError) -> None:
        """Add to the error the name of the child that it came through."""
        if error.modules:
            child = error.modules[-1]
            name = next((name for name, module in self.named_modules() if module is child), "")
            if name:
                error.path.append(name)
        error.modules.append(self)

    # Registration
    def __setattr__(self, name: str, value) -> None:
        state = self.__dict__
        parameters = state.get("_parameters")
        if parameters is None:
            if isinstance(value, (Parameter, Module, Buffer)):
                raise AttributeError(f"{type(self).__name__}: cannot assign {name!r} before super().__init__() "
                                     "was called")
            object.__setattr__(self, name, value)
        elif isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.register_module(name, value)
        elif isinstance(value, Buffer):
            self.register_buffer(name, value, value.persistent)
        elif name in parameters or name in state["_modules"]:
            kind, registry = ("Parameter", parameters) if name in parameters else ("Module", state["_modules"])
            if value is not None:
                raise TypeError(f"{type(self).__name__}.{name}: expected a {kind} or None, received "
                                f"{type(value).__name__}; delete the attribute first to make it something else")
            registry[name] = None
        elif name in state["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"{type(self).__name__}.{name}: expected a Tensor or None for a buffer, received "
                                f"{type(value).__name__}")
            state["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str):
        # Reached only where the instance and the class have no such attribute.
        state = self.__dict__
        if "_parameters" in state:                      # absent before __init__ has run
            if name in (parameters := state["_parameters"]):
                return parameters[name]
            if name in (modules := state["_modules"]):
                return modules[name]
            if name in (buffers := state["_buffers"]):
                return buffers[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        for registry in (self._parameters, self._modules, self._buffers):
            if name in registry:
                del registry[name]
                self._not_persistent.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self):
        return sorted({*super().__dir__(), *self._parameters, *self._modules, *self._buffers})

    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter; None reserves the name, as for the bias of a layer without one."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise TypeError(f"register_parameter: {name} expects a Parameter or None, received "
                            f"{type(parameter).__name__}")
        if parameter is not None and not parameter.is_leaf:
            raise UsageError(f"register_parameter: {name} is the result of an operation; a parameter must be a leaf")
        self._register(self._parameters, name, parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is not trained; it is part of the `state_dict` where `persistent`."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"register_buffer: {name} expects a Tensor or None, received {type(tensor).__name__}")
        self._register(self._buffers, name, tensor)
        if persistent:
            self._not_persistent.discard(name)
        else:
            self._not_persistent.add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a child."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"register_module: {name} expects a Module or None, received {type(module).__name__}")
        self._register(self._modules, name, module)

    add_module = register_module

    def _register(self, registry: dict, name: str, value) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise KeyError(f"{type(self).__name__}: a name expects a non-empty string without a dot, received {name!r}")
        if hasattr(type(self), name):
            raise KeyError(f"{type(self).__name__}: the attribute {name!r} of the class would be hidden; "
                           "choose another name")
        for other in (self.__dict__, self._parameters, self._buffers, self._modules):
            if other is not registry:
                other.pop(name, None)
        registry[name] = value

    # Traversal
    def named_modules(self, memo: set | None = None, prefix: str = "",
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names, depth first, each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, child in self._modules.items():
            if child is not None:
                yield from child.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below this one, each once."""
        seen = set()
        for name, child in self._modules.items():
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def _named_members(self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool):
        seen = set()
        for module_name, module in self.named_modules(None, prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, member in getattr(module, registry).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield f"{module_name}.{name}" if module_name else name, member

    def named_parameters(self, prefix: str = "", recurse: bool = True,
                         remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names; one that is shared is given once."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True,
                      remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their dotted names; one that is shared is given once."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name; "" is this one."""
        module = self
        for name in target.split(".") if target else ():
            child = getattr(module, name, None)
            if not isinstance(child, Module):
                raise AttributeError(f"get_submodule: {type(module).__name__} has no module {name!r} (in {target!r}); "
                                     f"it has {[n for n, _ in module.named_children()]}")
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name."""
        return self._get_member(target, "_parameters", "parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name."""
        return self._get_member(target, "_buffers", "buffer")

    def _get_member(self, target: str, registry: str, kind: str):
        path, _, name = target.rpartition(".")
        members = getattr(self.get_submodule(path), registry)
        if name not in members:
            raise AttributeError(f"get_{kind}: there is no {kind} {target!r}; expected one of {list(members)}")
        return members[name]

    # Modes, gradients, placement
    def apply(self, function: Callable[[Module], None]) -> Module:
        """Call `function` on every module below this one and on this one, children first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def train(self, mode: bool = True) -> Module:
        """Switch this module and all below to training mode (dropout drops, batch norm uses the batch).

        A module whose `frozen` is set stays in evaluation mode.
        """
        if not isinstance(mode, bool):
            raise UsageError(f"train: expected True or False, received {mode!r}")
        for module in self.modules():
            module.training = mode and not module.frozen
        return self

    def eval(self) -> Module:
        """Switch to evaluation mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Switch the gradients of all parameters on or off: freezing."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.detach_().zero_()

    def _convert(self, function: Callable[[Tensor], Tensor]) -> Module:
        """Replace the memory of every parameter, gradient and buffer by `function` of it."""
        for parameter in self.parameters():
            parameter.data = function(parameter.detach())
            if parameter.grad is not None:
                parameter.grad = function(parameter.grad)
        for module in self.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = function(buffer)
        return self

    def to(self, *args, device=None, dtype=None) -> Module:
        """Move to a device, convert floating-point members to a dtype, or both.

        Forms: ``to("cpu")``, ``to(numbanet.float64)``, ``to(device, dtype)``, ``to(tensor)``.
        """
        for argument in args:
            if isinstance(argument, Tensor):
                device, dtype = argument.device, argument.dtype
            elif isinstance(argument, str):
                device = argument
            elif argument is not None:
                dtype = dtypes.as_dtype(argument)
        if dtype is not None and not dtypes.is_floating_point(dtypes.as_dtype(dtype)):
            raise UsageError(f"to: a module takes floating-point dtypes only, received {dtype}")
        return self._convert(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None))

    def cpu(self) -> Module:
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> Module:
        return self.to("cuda" if device is None else f"cuda:{device}")

    def float(self) -> Module:
        return self.to(dtypes.float32)

    def double(self) -> Module:
        return self.to(dtypes.float64)

    def half(self) -> Module:
        return self.to(dtypes.float16)

    # Hooks
    def _register_hook(self, kind: str, hook, prepend: bool = False) -> RemovableHandle:
        if self._hooks is None:
            self.__dict__["_hooks"] = {k: OrderedDict() for k in ("forward_pre", "forward", "backward_pre", "backward")}
        return RemovableHandle(self._hooks[kind], hook, prepend)

    def register_forward_pre_hook(self, hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, args)``, or ``hook(module, args, kwargs)``, before `forward`; a result replaces them."""
        return self._register_hook("forward_pre", (hook, with_kwargs), prepend)

    def register_forward_hook(self, hook, *, prepend: bool = False, with_kwargs: bool = False) -> RemovableHandle:
        """Call ``hook(module, args, output)``, or with kwargs before output, after `forward`; a result replaces it."""
        return self._register_hook("forward", (hook, with_kwargs), prepend)

    def register_full_backward_pre_hook(self, hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the gradients pass through; a returned tuple replaces them."""
        return self._register_hook("backward_pre", hook, prepend)

    def register_full_backward_hook(self, hook, prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` once the inputs have gradients; a returned tuple replaces
        them."""
        return self._register_hook("backward", hook, prepend)

    # Text
    def extra_repr(self) -> str:
        """What stands inside the parentheses of the layer's line."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self):
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({name}): " + repr(child).replace("\n", "\n  ") for name, child in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({extra})"
        body = "".join(f"\n  {line}" for line in (*lines, *children))
        return f"{self._get_name()}({body}\n)" if body else f"{self._get_name()}()"
