"""Recipes: the published ones can be made, and every field is checked."""

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.cli.tasks import task_of
from numbanet.data import transforms
from numbanet.errors import UsageError
from numbanet.train.recipe import Recipe, list_recipes, make_transforms, read_recipe
from numbanet.zoo import model_info
from tests.cli.conftest import run

PUBLISHED = ["alexnet2012", "detector", "googlenet", "inception_v3", "lenet5", "lenet5_1998", "lenet5_1998_distorted", "mobilenet_v2",
             "resnet20_cifar", "resnet50", "segmenter", "vgg16"]


def rates(recipe, steps=2):
    """The rate of each epoch's first step."""
    optimizer = recipe.make_optimizer(nn.Linear(2, 2))
    scheduler, interval = recipe.make_schedule(optimizer, steps)
    found = []
    for _ in range(recipe.epochs):
        found.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps if interval == "step" else 1):
            if recipe.schedule == "plateau":
                scheduler.step(1.0)
            elif scheduler is not None:
                scheduler.step()
    return found


def test_the_published_are_all_there():
    assert list_recipes() == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe(name):
    values = read_recipe(name)
    missing = [t if isinstance(t, str) else next(iter(t)) for t in values.get("train_transforms", [])]
    missing = [t for t in missing if not hasattr(transforms, t)]
    if missing:
        pytest.skip(f"numbanet.data.transforms has no {missing}")
    task = task_of(values, name)
    recipe = task.recipe.load(name)
    assert model_info(task.training.network(recipe)) and getattr(recipe, "source", "made up")
    assert len(rates(recipe)) == recipe.epochs
    assert task.recipe.from_dict(__import__("yaml").safe_load(recipe.as_yaml())) == recipe


def test_schedules_as_published():
    found = rates(Recipe.load("resnet20_cifar"))
    assert found[0] == found[81] == 0.1 and found[82] == pytest.approx(0.01) and found[123] == pytest.approx(0.001)
    found = rates(Recipe.load("lenet5_1998"))
    assert np.array(found) / 0.005 == pytest.approx([0.4] + [1] * 6 + [0.4] * 8 + [0.1] * 5)
    cosine = rates(Recipe(model="x", schedule="cosine", lr=1.0, epochs=6, warmup_epochs=2))
    assert cosine[0] == pytest.approx(0.01) and cosine[2] == pytest.approx(1.0) and cosine[-1] < 0.2
    poly = rates(Recipe(model="x", schedule="poly", lr=1.0, epochs=4))
    assert poly == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(Recipe(model="x", schedule="constant", lr=0.5, epochs=2)) == [0.5, 0.5]


@pytest.mark.parametrize(("values", "message"), [
    ({"epoch": 3}, "unknown field 'epoch'; did you mean 'epochs'?"), ({"xyzzy": 3}, "unknown field 'xyzzy'; the fields are model"),
    ({"epochs": "ten"}, "--epochs: expected an integer, received 'ten'"), ({"epochs": True}, "--epochs: expected an integer"),
    ({"epochs": 0}, "--epochs: expected at least 1"), ({"lr": float("inf")}, "--lr: expected a number above 0"),
    ({"optimizer": "lion"}, "--optimizer: expected one of"), ({"schedule": "step", "warmup_epochs": -1}, "--warmup-epochs"),
    ({"schedule": "poly", "warmup_epochs": 1}, "has no warm-up"), ({"train_transforms": ["RandomCrap"]}, "did you mean RandomCrop"),
    ({"train_transforms": [{"RandomCrop": {"siz": 3}}]}, "RandomCrop cannot be made of"), ({"train_transforms": [3]}, "expected a name"),
    ({"distortions": {"degree": 3}}, "--distortions: expected ranges of degrees"), ({"distortions": {"shear": 95}}, "below 90 degrees"),
    ({"distortions": {"scale": "x"}}, "--distortions: expected ranges"), ({"distortions": 3}, "--distortions: expected a mapping"),
    ({"mixup": None}, "--mixup: expected a number"), ({"layer_lr": [1]}, "--layer-lr: expected a mapping"), ([], "expected a mapping")])
def test_what_is_refused(values, message):
    with pytest.raises(UsageError) as caught:
        Recipe.from_dict(values)
    assert message in str(caught.value)


def test_ranges_of_distortions():
    assert Recipe(model="x", distort=False, distortions={"degrees": 3}).make_distortions() is None
    assert Recipe(model="x", distortions={"degrees": 3}).make_distortions() == {"degrees": 3}
    assert set(Recipe(model="x").make_distortions()) == {"degrees", "translate", "scale", "shear"}
    assert "distortions" not in Recipe(model="x").as_asked()                    # runs of before go on


def test_options_of_other_optimisers_and_schedules():
    recipe = Recipe.load("resnet20_cifar").changed({"optimizer": "adamw", "schedule": "cosine"})
    assert (recipe.lr, recipe.momentum, recipe.nesterov, recipe.schedule_options) == (None, None, None, {})
    recipe.make_optimizer(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="--momentum: adam has no momentum"):
        Recipe(model="x", optimizer="adam", momentum=0.9).make_optimizer(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="--schedule-options: step cannot be made of"):
        rates(Recipe(model="x", schedule="step"))
    assert Recipe(model="x", lr="1e-3").lr == 1e-3
    assert make_transforms([{"RandomHorizontalFlip": None}])[0].p == 0.5


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = run("train", "--recipe", "resnet20_cifar", "--print-config", "--lr", "0.05", "--layer-lr", "{fc: 10}", "--no-distort")
    assert answer.code == 0 and not list(tmp_path.iterdir())
    (tmp_path / "mine.yaml").write_text(answer.out)
    mine = Recipe.load(tmp_path / "mine.yaml")
    assert (mine.lr, mine.layer_lr, mine.distort, mine.epochs) == (0.05, {"fc": 10}, False, 164)
    assert run("train", "--recipe", "mine.yaml", "--print-config").out == answer.out
    (tmp_path / "bad.yaml").write_text("model: lenet5\nbatchsize: 3\n")
    for words, message in ((("--recipe", "bad.yaml"), "did you mean 'batch_size'"), (("--recipe", "resnet21"), "no recipe 'resnet21'"),
                           (("lenet5", "--layer-lr", "{a: ["), "--layer-lr: not YAML"), (("--recipe", "gone.yaml"), "cannot be read")):
        answer = run("train", *words)
        assert answer.code == 2 and message in answer.err
    numbanet.manual_seed(0)
