"""Packages outside add backends, models and datasets through entry points: three small ones, "installed" on sys.path."""

import sys
import textwrap

import numpy as np
import pytest

import numbanet
import numbanet.backends as backends
from numbanet.data import datasets
from numbanet.errors import BackendError, DataError, UsageError
from numbanet.zoo import registry


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a package of one module and its entry points where Python finds it, for one test."""
    monkeypatch.syspath_prepend(tmp_path)
    for module, name in ((backends, "_instances"), (registry, "_models"), (datasets.registry, "_datasets")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    registry._load_plugins.cache_clear()

    def install(module: str, entry_points: str, source: str) -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        information = tmp_path / f"{module}-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(entry_points)
        monkeypatch.delitem(sys.modules, module, raising=False)

    yield install
    registry._load_plugins.cache_clear()


def test_a_backend(install):
    install("outside_backend", "[numbanet.backends]\nloud = outside_backend:create\n", """
        from numbanet.backends.reference import ReferenceBackend, create as create_reference
        from numbanet.backends import Implementations

        def create():
            create_reference()                              # registers the reference's primitives
            class Loud(ReferenceBackend):
                name, implementations = "loud", Implementations("loud")
            Loud.implementations.update(ReferenceBackend.implementations)
            def relu_forward(x, out):
                out[...] = 100
            Loud.implementations(relu_forward)
            return Loud()
        """)
    x = numbanet.tensor([[-1.0, 2.0]], device="loud", requires_grad=True)
    y = numbanet.nn.functional.relu(x)
    assert y.device == "loud" and y.tolist() == [[100.0, 100.0]]
    (y * 2).sum().backward()
    assert x.grad.tolist() == [[2.0, 2.0]]
    assert backends.available_backends()["loud"] == ""
    with pytest.raises(BackendError, match="loud.*cpu|cpu.*loud"):
        y + numbanet.tensor([1.0, 1.0])


def test_a_backend_that_cannot_run_says_why(install):
    install("broken_backend", "[numbanet.backends]\nbroken = broken_backend:create\n", "import a_driver_that_is_absent\n")
    assert "a_driver_that_is_absent" in backends.available_backends()["broken"]
    with pytest.raises(BackendError, match="broken.*a_driver_that_is_absent"):
        numbanet.zeros(2, device="broken")
    with pytest.raises(BackendError, match="no such backend.*broken.*cpu"):
        numbanet.zeros(2, device="absent")


def test_a_model(install):
    install("outside_model", "[numbanet.models]\nanything = outside_model\n", """
        from numbanet import nn
        from numbanet.zoo import register_model

        @register_model(input_size=(1, 8, 8), num_classes=3, paper="None, 2000")
        def outside_net(num_classes, in_chans):
            "A linear classifier."
            return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_chans, num_classes))
        """)
    assert "outside_net" in numbanet.list_models() and registry.model_info("outside_net").description == "A linear classifier."
    assert numbanet.create_model("outside_net", num_classes=5)(numbanet.zeros(2, 1, 8, 8)).shape == (2, 5)
    with pytest.raises(UsageError, match="did you mean outside_net"):
        numbanet.create_model("outsidenet")


def test_a_broken_model_package_hides_nothing(install, caplog):
    install("broken_model", "[numbanet.models]\nanything = broken_model\n", "raise RuntimeError('of no use')\n")
    assert "lenet5" in numbanet.list_models()
    assert "broken_model" in caplog.text and "of no use" in caplog.text


def test_a_dataset(install):
    install("outside_data", "[numbanet.datasets]\nstripes = outside_data:Stripes\n", """
        import numpy as np
        from numbanet.data import ArrayDataset

        class Stripes(ArrayDataset):
            def __init__(self, count, vertical=False):
                images = np.zeros((count, 6, 6), np.uint8)
                images[(slice(None),) * (2 if vertical else 1) + (slice(0, 6, 2),)] = 255
                super().__init__(images, np.full(count, int(vertical)))
        """)
    assert "stripes" in datasets.list_datasets()
    image, label = datasets.create_dataset("stripes", 4, vertical=True)[3]
    assert label == 1 and np.ptp(image[0]) == 255 and not np.ptp(image[:, 0])
    with pytest.raises(UsageError, match="did you mean stripes"):
        datasets.create_dataset("stripe")
    with pytest.raises(UsageError, match="stripes is already registered"):
        datasets.register_dataset("stripes", dict)


def test_dataset_packages_in_conflict_and_broken_ones(install):
    install("other_data", "[numbanet.datasets]\nmnist = other_data:make\n", "def make(): return 1\n")
    install("broken_data", "[numbanet.datasets]\nsquares = broken_data:Squares\n", "raise RuntimeError('of no use')\n")
    with pytest.raises(UsageError, match="'mnist'.*other_data.*numbanet's own"):
        datasets.create_dataset("mnist", ".")
    with pytest.raises(DataError, match="squares of broken_data.*of no use"):
        datasets.create_dataset("squares")


def test_own_datasets_by_name(tmp_path, monkeypatch):
    assert {"fashion_mnist", "image_folder", "mnist", "mnist_sample"} <= set(datasets.list_datasets())
    assert datasets.list_datasets("*mnist") == ["fashion_mnist", "mnist"]
    assert len(datasets.create_dataset("mnist_sample", train=False)) == 2000
    with pytest.raises(DataError, match="idx3"):
        datasets.create_dataset("mnist", tmp_path)
    monkeypatch.setattr(datasets.registry, "_datasets", dict(datasets.registry._datasets))
    datasets.register_dataset("pairs", lambda n: [(i, 0) for i in range(n)])
    assert datasets.create_dataset("pairs", 2) == [(0, 0), (1, 0)]
    with pytest.raises(UsageError, match="there are .*mnist_sample"):
        datasets.create_dataset("zzzzzzzzzz")
