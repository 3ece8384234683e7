"""The registry of models."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

import numbanet
from numbanet import nn, zoo
from numbanet.errors import UsageError
from numbanet.zoo import registry


@pytest.fixture
def own_model(monkeypatch):
    """A model that the registry forgets after the test."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))

    @zoo.register_model(input_size=(3, 8, 8), num_classes=5, mean=(0.5, 0.5, 0.5))
    def tiny(num_classes=5, in_chans=3, width=2):
        """One convolution.

        More text.
        """
        return nn.Sequential(nn.Conv2d(in_chans, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(width, num_classes))
    return tiny


def test_create_by_name(own_model):
    assert zoo.create_model("tiny")(numbanet.ones(2, 3, 8, 8)).shape == (2, 5)
    model = zoo.create_model("tiny", num_classes=4, in_chans=1, width=7)
    assert model[0].weight.shape == (7, 1, 3, 3) and model[3].out_features == 4


def test_list_models(own_model):
    names = zoo.list_models()
    assert names == sorted(names) and {"lenet5", "lenet5_1998", "tiny"} <= set(names)
    assert zoo.list_models("lenet*") == ["lenet5", "lenet5_1998"] and zoo.list_models("x*") == []


def test_model_info(own_model):
    info = zoo.model_info("tiny")
    assert (info.input_size, info.num_classes, info.mean, info.std) == ((3, 8, 8), 5, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert info.description == "One convolution." and info.create is own_model
    assert "LeCun" in zoo.model_info("lenet5_1998").paper


def test_names_are_unique(own_model):
    with pytest.raises(UsageError, match="tiny is already registered by tests.zoo"):
        zoo.register_model(own_model)


@pytest.mark.parametrize("name, hint", [("lenet", "did you mean lenet5"), ("LeNet-5", "did you mean lenet5"),
                                        ("zzz", r"list_models\(\) names all \d+")])
def test_unknown_names(name, hint):
    with pytest.raises(UsageError, match=f"there is no model '{name}'; {hint}"):
        zoo.create_model(name)


def test_models_of_other_packages(own_model, monkeypatch, caplog):
    def plugin_model(num_classes=2, in_chans=1):
        return nn.Linear(in_chans, num_classes)

    class Loads(EntryPoint):
        def load(self):
            if self.name == "broken":
                raise ImportError("no such thing")
            return zoo.register_model(plugin_model, input_size=(1, 1, 1), num_classes=2)

    found = [Loads("broken", "absent.package", "numbanet.models"), Loads("ok", "there", "numbanet.models")]
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == "numbanet.models" else [])
    registry._load_plugins.cache_clear()
    assert zoo.create_model("plugin_model")(numbanet.ones(3, 1)).shape == (3, 2)
    assert "models of absent.package could not be loaded: no such thing" in caplog.text
    registry._load_plugins.cache_clear()
