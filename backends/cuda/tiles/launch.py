"""From a launch of a tile program to a call of the driver: machine code from the cubin cache, raw addresses as arguments.

Not run on a GPU so far: what a machine without one can check is that arguments are laid out as the PTX declares them.
"""

from __future__ import annotations

from numbanet.backends.cuda.driver import Parameters
from numbanet.backends.cuda.tiles.arguments import Launch
from numbanet.backends.cuda.tiles.catalog import argument_types, cubin_of
from numbanet.errors import BackendError

REMEMBERED = 4096            # calls of a device: those of a network, forward and backward, many times over


def parameters_of(launch: Launch) -> Parameters:
    """The arguments of a launch one by one: what the parameters of its kernel are."""
    types = argument_types(launch.program)
    for text, value in zip(types, launch.arguments, strict=True):
        count = text.partition("x")[2]
        if len(value) != int(count):
            raise BackendError(f"{launch.program.name}: an argument of type {text} expects {count} numbers, received {len(value)}")
    return Parameters(types, [number for value in launch.arguments for number in value])


def call_of(device, launch: Launch):
    """The call of a launch on a `driver.Device`, its kernel loaded and its arguments laid out; kept for the next time."""
    call = device.tile_calls.get(launch)
    if call is None:
        program = launch.program
        function = device.tile_functions.get(program)
        if function is None:
            made = cubin_of(program, device.arch)
            function = device.tile_functions[program] = device.load(made.code, made.name, program.shared_bytes)
        if len(device.tile_calls) >= REMEMBERED:
            device.tile_calls.clear()
        call = device.tile_calls[launch] = device.call(function, launch.grid, launch.threads, parameters_of(launch), launch.shared_bytes)
    return call
