"""A GPU that executes the PTX of every launch, in NumPy.

    source.py     PTX text to blocks of instructions
    code.py       blocks to Python functions over all threads at once
    machine.py    memory, warps, barriers, and what is checked of them
    device.py     the device of the backend "cuda" that is made of it

`python -m tests.backends.cuda.executed -q tests/ops -k cuda` runs any tests with it as "cuda".
"""
