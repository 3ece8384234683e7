"""What is installed: the list of packages, a wheel in a fresh environment, and what importing costs."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"numbanet": ROOT / "numbanet", "numbanet/backends": ROOT / "backends"}      # path in the package: path in the repository


def source_files(suffix: str) -> set[str]:
    """Paths inside the package of the repository's files."""
    return {f"{inside}/{path.relative_to(folder).as_posix()}" for inside, folder in SOURCES.items() for path in folder.rglob(f"*{suffix}")}


def run(command, cwd, **environment) -> str:
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {path.removesuffix("/__init__.py").replace("/", ".") for path in source_files("__init__.py")}
    assert sorted(set(listed)) == sorted(on_disk) and len(set(listed)) == len(listed)
    without = {path.rpartition("/")[0].replace("/", ".") for path in source_files(".py")} - on_disk
    assert not without, "folders of modules without __init__.py"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of what a build reads, so that no build folder appears in the repository."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("numbanet", "backends"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(clone):
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist"], clone)
    path, = (clone / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment with the wheel; what it depends on is read where this Python has it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel], folder)
    site = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], folder).strip())
    folders = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]     # .pth files may add some
    (site / "dependencies.pth").write_text("\n".join(folders) + "\n")               # .pth files in there are not read again
    return python


def test_wheel_holds_the_whole_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert source_files(".py") <= names
    assert {"numbanet/py.typed", "numbanet/backends/py.typed", "numbanet/data/datasets/mnist_sample/digits.npz",
            "numbanet/data/datasets/mnist_sample/LICENSE.txt"} | {f"numbanet/explore/page/{path.name}" for path in (
                ROOT / "numbanet" / "explore" / "page").iterdir()} <= names
    assert not [name for name in names if name.startswith(("backends/", "tests/"))]
    assert len([name for name in names if "dist-info/licenses/" in name]) == 2


def test_wheel_installed_elsewhere(installed, tmp_path):
    out = run([installed, "-c", """
import sys
import numbanet, numbanet.backends
from numbanet.data.datasets import MNISTSample
assert numbanet.__file__.startswith(sys.prefix) and numbanet.backends.__file__.startswith(sys.prefix), numbanet.__file__
assert len(MNISTSample(train=False)) == 2000
x = numbanet.zeros(2, 1, 32, 32, device="reference")
print(numbanet.create_model("lenet5").to("reference")(x).shape, numbanet.ones(3).add(1).sum().item())
"""], tmp_path)
    assert out == "(2, 10) 6.0\n"
    assert "train" in run([installed.with_name("numbanet"), "--help"], tmp_path)
    assert "lenet5" in run([installed, "-m", "numbanet", "models"], tmp_path)


def test_python_started_in_the_clone_finds_the_backends(installed, clone):
    """There, ./numbanet hides the installed package, and the backends lie beside it."""
    code = "import numbanet, numbanet.backends as b; print(numbanet.__file__, b.__file__, numbanet.ones(2).sum().item(), sep='\\n')"
    package, backends, value = run([installed, "-c", code], clone).split()
    assert Path(package) == clone / "numbanet" / "__init__.py" and Path(backends) == clone / "backends" / "__init__.py"
    assert float(value) == 2


@pytest.mark.parametrize("statement, absent", [
    ("import numbanet", "numba numpy llvmlite PIL numbanet.backends"),
    ("import numbanet.cli; numbanet.cli.main(['--help'])", "numba numpy llvmlite PIL"),
    ("import numbanet; numbanet.nn, numbanet.optim, numbanet.graph, numbanet.zoo", "numba llvmlite PIL"),
    ("import numbanet; numbanet.data, numbanet.train", "numba llvmlite"),           # transforms are of Pillow's images
    ("import numbanet; numbanet.create_model('lenet5')(numbanet.zeros(1, 1, 32, 32))", "numba llvmlite PIL"),
])
def test_imports_load_only_what_they_need(statement, absent):
    out = run([sys.executable, "-c", f"{statement}\nimport sys\nprint('\\nmodules', *sys.modules)"], ROOT, NUMBANET_DEVICE="reference")
    assert not set(absent.split()) & set(out.splitlines()[-1].split())


def test_import_is_quick():
    code = "import time; t = time.perf_counter(); import numbanet; print(time.perf_counter() - t)"
    assert min(float(run([sys.executable, "-c", code], ROOT)) for _ in range(3)) < 0.15


def test_the_folder_of_backends_is_no_package_of_its_own():
    done = subprocess.run([sys.executable, "-c", "import backends"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and "import numbanet.backends, not backends" in done.stderr
