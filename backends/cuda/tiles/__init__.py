"""Tile programs: matrix products and the three passes of convolution as one family of kernels, shaped for tensor cores.

    shape.py       what a program is built from: Tile, Operand, Program
    layout.py      index functions: swizzle, fragments, division by known numbers, the walk over tiles
    operands.py    global to shared memory: matrices, pixels, windows, filters
    multiply.py    shared memory to accumulators: ldmatrix and mma, or plain float32
    epilogue.py    accumulators to y: scale, shift, residual, limits, statistics
    program.py     the kernel: the pipeline over the depth
    reduce.py      second pass of split products
    depthwise.py   convolution with one filter a channel
    arguments.py   views of arrays to launches
    choose.py      which tile, how many splits

A program is built for a machine: `ptx` when it is compiled, the emulator of the tests when it runs without a GPU.
"""

from __future__ import annotations

from numbanet.backends.cuda.tiles.depthwise import Depthwise, build_depthwise
from numbanet.backends.cuda.tiles.program import build_program
from numbanet.backends.cuda.tiles.reduce import SplitEpilogue, build_split_epilogue
from numbanet.backends.cuda.tiles.shape import Program

_BUILDERS = {Program: build_program, SplitEpilogue: build_split_epilogue, Depthwise: build_depthwise}


def build(program, machine):
    """The kernel, a Python function, of a `Program` or another member of the family, for a machine."""
    return _BUILDERS[type(program)](program, machine)
