"""The rules of the house, read from the sources: who may import whom, where Numba is, what has a docstring."""

import ast
import importlib
import inspect
import pkgutil
import sys
import tomllib
from functools import cache
from pathlib import Path

import numbanet.backends as backends
import numbanet.ops
from numbanet._names import MODULES, WHERE

ROOT = Path(__file__).parents[1]

# From the foundation upwards. A part may import from lower rows, and from its own row only what stands in one part with it.
LAYERS = (
    ("errors", "_version", "_names"),
    ("absent", "dtypes", "geometry", "random", "files"),
    ("backends",),
    ("cuda", "threading", "_tensor+autograd"),
    ("ops",),
    ("amp",),
    ("nn", "optim", "graph", "weights"),
    ("functional", "data", "onnx", "zoo"),
    ("vision",),
    ("train",),
    ("detection", "segmentation"),
    ("search",),
    ("explore",),
    ("cli",),
    ("__main__",),
)
ROW = {name: row for row, parts in enumerate(LAYERS) for part in parts for name in part.split("+")}
TOGETHER = {name: part for parts in LAYERS for part in parts for name in part.split("+")}

# Operations compute through primitives. These modules of ops use NumPy for what is not an operation:
NUMPY_IN_OPS = {
    "conversion": "Tensor.to, .cpu: copies between the memories of two backends",
    "elementwise": "tells NumPy scalars, which are weak, from arrays",
    "factories": "values that Python makes (eye, linspace), and isclose, which answers outside of the tape",
    "indexing": "indices are data of the host: masks and lists become int64 arrays",
    "interchange": "DLPack and __array__ are NumPy's protocols",
    "operators": "tells NumPy scalars and arrays from tensors",
    "printing": "repr formats host arrays",
    "rearrange": "the index array of repeat_interleave",
}
# What parts import beside the dependencies, from an extra:
EXTRAS = {"numbanet.onnx": ("onnx", "google"),     # protobuf
          "numbanet.explore": ("starlette", "uvicorn"), "numbanet.cli.explore": ("starlette", "uvicorn"),
          "numbanet.search.neighbours": ("usearch",),
          "numbanet.backends.cuda": ("cuda",),
          "numbanet.train.callbacks.writers": ("tensorboardX",), "numbanet.train.distributed": ("mpi4py",)}
DECORATORS_OF_NUMBA = {"njit", "jit", "vectorize", "guvectorize", "stencil", "cfunc"}
# The modules of backends/cuda that may call numba.cuda.jit: the decorators, the launcher, and the simulator's run of a kernel.
COMPILERS_OF_CUDA = {f"numbanet.backends.cuda.{name}" for name in ("compile", "cubin", "launch", "ptx", "simulator")}


def _sources():
    """(module name, path, syntax tree) of every module of the package."""
    for folder, package in ((ROOT / "numbanet", "numbanet"), (ROOT / "backends", "numbanet.backends")):
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path, ast.parse(path.read_text())


SOURCES = list(_sources())


@cache
def _imports(module: str, path: Path, tree: ast.AST) -> set[str]:
    return set(_imported(module, path, tree))


def _imported(module: str, path: Path, tree: ast.AST):
    """Absolute names of what a module imports anywhere: modules, and names within them."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[:len(package.split(".")) - node.level + 1] if node.level else []
            yield from (".".join([*base, node.module or "", alias.name]).replace("..", ".") for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "numbanet":
            yield f"numbanet.{node.attr}"       # after `import numbanet`: names that load lazily


def _part(name: str) -> str | None:
    """The part of the house of an absolute name: numbanet.nn.layers.Linear -> nn."""
    name = name.split(".")[1] if "." in name else None
    if name in WHERE and name not in MODULES:
        name = WHERE[name].split(".")[1]
    return name


def test_imports_point_downwards():
    unknown, upwards = set(), []
    for module, path, tree in SOURCES:
        if module == "numbanet":
            continue
        own = _part(module)
        for name in _imports(module, path, tree):
            part = _part(name) if name.partition(".")[0] == "numbanet" else None
            if part is None or part.startswith("__") or part == own:
                continue
            unknown |= {own, part} - set(ROW)
            if not unknown and ROW[part] >= ROW[own] and TOGETHER[part] != TOGETHER[own]:
                upwards.append(f"{module} imports {name}")
    assert not unknown, "give these a place in LAYERS"
    assert not upwards


def test_only_backends_know_numba():
    assert [module for module, path, tree in SOURCES for name in _imports(module, path, tree)
            if name.partition(".")[0] in ("numba", "llvmlite")
            and not module.startswith(("numbanet.backends.cpu", "numbanet.backends.cuda"))] == []


def test_compile_flags_stand_in_one_place():
    stray = []
    for module, path, tree in SOURCES:
        if module == "numbanet.backends.cpu.compile":
            continue
        names = {name for name in _imports(module, path, tree) if name.startswith("numba.")}
        names |= {f"numba.{n.attr}" for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "numba"}
        names |= {f"numba.cuda.{n.attr}" for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "cuda"
                  and module not in COMPILERS_OF_CUDA}
        stray += [f"{module}: {name}" for name in names if DECORATORS_OF_NUMBA & set(name.split(".")[1:])
                  and module not in COMPILERS_OF_CUDA]
        stray += [f"{module}: {name}" for name in names if name.startswith("numba.cuda")
                  and not module.startswith("numbanet.backends.cuda")]
    assert not stray, "kernels are made by @kernel and @worker"


def test_the_library_never_prints():
    assert [module for module, path, tree in SOURCES if not module.startswith("numbanet.cli") for node in ast.walk(tree)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"] == []


def test_only_declared_dependencies_are_imported():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {"pillow": "PIL", "pyyaml": "yaml"}
    allowed = {names.get(name, name) for name in (line.partition(">")[0] for line in declared)} | {"numbanet"}
    found = {(module, name.partition(".")[0]) for module, path, tree in SOURCES for name in _imports(module, path, tree)
             if not any(module.startswith(part) and name.partition(".")[0] in extra for part, extra in EXTRAS.items())}
    assert {pair for pair in found if pair[1] not in allowed | sys.stdlib_module_names} == set()


def test_numpy_in_operations():
    modules = {module.rpartition(".")[2]: tree for module, _, tree in SOURCES if module.startswith("numbanet.ops.")}
    using = {name for name, tree in modules.items() if "numpy" in _imports(f"numbanet.ops.{name}", Path(), tree)}
    assert using == set(NUMPY_IN_OPS)
    for name, tree in modules.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name != "Transfer":      # whose arrays belong to two backends
                inside = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                assert not inside & {"np", "numpy"}, f"numbanet.ops.{name}.{node.name} computes with NumPy"


def test_every_module_says_what_it_is_and_is_small():
    assert [module for module, _, tree in SOURCES if not ast.get_docstring(tree)] == []
    assert [module for module, path, _ in SOURCES if path.read_text().count("\n") > 600] == []


def test_every_primitive_says_what_it_computes():
    assert [name for name, declared in backends.PRIMITIVES.items() if not (declared.__doc__ or "").strip()] == []


def test_every_public_function_and_operation_has_a_docstring():
    missing = []
    for found in pkgutil.iter_modules(numbanet.ops.__path__):
        module = importlib.import_module(f"numbanet.ops.{found.name}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
            if own and (inspect.isfunction(value) or isinstance(value, type)) and not value.__doc__:
                missing.append(f"{module.__name__}.{name}")
    assert not missing


OPTIONAL = {"expecttest", "onnxruntime", "torch", "torchvision"}         # not among the extra "test"


def test_tests_skip_where_an_optional_package_is_missing():
    """A test imports it by `pytest.importorskip`, or after something that has done so; helpers may import it plainly."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for test in ast.walk(ast.parse(path.read_text())):
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                first = test.body[1] if ast.get_docstring(test) else test.body[0]
                found += [f"{path.name}: {test.name} imports {alias.name}" for statement in test.body if isinstance(statement, ast.Import)
                          and statement is first for alias in statement.names if alias.name.partition(".")[0] in OPTIONAL]
    assert not found
