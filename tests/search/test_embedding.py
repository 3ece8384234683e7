"""Vectors: of which layer, of what length, in which batches, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet import nn, zoo
from numbanet.errors import DataError, UsageError
from numbanet.search import Embedder, embed_files, open_embedder
from numbanet.search.embedding import feeding_layer
from numbanet.train.preprocessing import Preprocessing
from numbanet.weights import save_weights
from tests.search.conftest import PREPROCESSING, picture, small_embedder, small_network, write_pictures


def _normal(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _input(pictures):
    return numbanet.tensor(PREPROCESSING.batch_transform()(np.stack([PREPROCESSING.pixels(p) for p in pictures])))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11])
def test_what_feeds_the_classifier(count):
    model, pictures = small_network(), [picture(i) for i in range(count)]
    embedder = Embedder(model, PREPROCESSING, batch_size=4)
    assert embedder.layer == "4" and embedder.side == "input" and embedder.dimension == 24 and embedder.layer_text == "what feeds 4"
    with numbanet.no_grad():
        expected = _normal(model[:4](_input(pictures)).numpy())
    np.testing.assert_allclose(embedder(pictures), expected, atol=1e-6)


def test_a_layer_with_positions_is_averaged():
    model, pictures = small_network(), [picture(i) for i in range(5)]
    embedder = Embedder(model, PREPROCESSING, "1", batch_size=4)
    with numbanet.no_grad():
        expected = _normal(model[:2](_input(pictures)).numpy().mean((2, 3)))
    assert embedder.dimension == 6
    np.testing.assert_allclose(embedder(pictures), expected, atol=1e-6)


def test_features_of_zeros_stay_zeros():
    model = small_network()
    model[0].weight.data = numbanet.zeros_like(model[0].weight)
    model[0].bias.data = numbanet.zeros_like(model[0].bias) - 1
    assert not Embedder(model, PREPROCESSING, batch_size=4)([picture(0)]).any()


def test_features_that_are_not_finite_are_told(tmp_path):
    model = small_network()
    model[0].bias.data = numbanet.full_like(model[0].bias, float("inf"))
    embedder = Embedder(model, PREPROCESSING, batch_size=4)
    with pytest.raises(DataError, match="picture 0: the network's features are not finite"):
        embedder([picture(0)])
    picture(1).save(tmp_path / "a.png")
    (one,), = embed_files(embedder, [tmp_path / "a.png"])
    assert one.vector is None and "not finite" in one.error


@pytest.mark.parametrize(("name", "layer", "dimension"), [
    ("lenet5", "classifier.output", 84), ("squeezenet1_1", "classifier.1", 512), ("mobilenet_v2", "classifier.1", 1280)])
def test_networks_of_the_zoo(name, layer, dimension):
    info = zoo.model_info(name)
    embedder = Embedder(zoo.create_model(name), Preprocessing.for_model(info))
    assert (embedder.layer, embedder.dimension) == (layer, dimension)


def test_an_onnx_file(tmp_path):
    pytest.importorskip("onnx")
    from numbanet.onnx import save
    model, pictures = small_network(), [picture(i) for i in range(5)]
    save(model, tmp_path / "small.onnx", numbanet.zeros(1, 3, 8, 8))
    metadata = tmp_path / "m.json"
    metadata.write_text(json.dumps({"preprocessing": PREPROCESSING.as_metadata()}))
    embedder = open_embedder(tmp_path / "small.onnx", metadata=metadata, batch_size=4)
    np.testing.assert_allclose(embedder(pictures), small_embedder()(pictures), atol=1e-6)


def test_a_model_without_weights_has_no_classifier():
    with pytest.raises(UsageError, match="no layer of Sequential has weights"):
        feeding_layer(nn.Sequential(nn.ReLU(), nn.Flatten()), PREPROCESSING)


def test_wrong_layers_are_refused():
    with pytest.raises(UsageError, match="layer 'conv' does not exist"):
        Embedder(small_network(), PREPROCESSING, "conv")
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 2), nn.Unflatten(1, (2, 3))

        def forward(self, x):
            return self.a(x.mean((2, 3)))
    with pytest.raises(UsageError, match="the network did not run layer b"):
        Embedder(Unused(), PREPROCESSING, "b")
    model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (8, 24)))
    with pytest.raises(UsageError, match=r"layer 1 gives a tensor of shape \(1, 8, 24\); expected maps"):
        Embedder(model, PREPROCESSING, "1")


def test_fingerprints_tell_embedders_apart():
    same, other = small_embedder().fingerprint, small_embedder(1).fingerprint
    assert same == small_embedder().fingerprint != other
    assert len({same, small_embedder(layer="3").fingerprint, small_embedder(raw=True).fingerprint,
                Embedder(small_network(), Preprocessing((3, 8, 8), (8, 8), (0.4,) * 3, (0.5,) * 3)).fingerprint}) == 4


def test_a_file_of_weights_and_a_name(tmp_path, caplog):
    model = zoo.create_model("lenet5")
    save_weights(tmp_path / "w.safetensors", model.state_dict(), {"model": "lenet5"})
    assert open_embedder(tmp_path / "w.safetensors").dimension == 84
    first = open_embedder("lenet5")
    assert "random weights" in caplog.text and first.fingerprint == open_embedder("lenet5").fingerprint
    with pytest.raises(UsageError, match="did you mean lenet5"):
        open_embedder("lenet55")


def test_files_in_order_with_what_is_wrong(tmp_path, embedder):
    write_pictures(tmp_path, 6)
    paths = sorted(tmp_path.rglob("*.png"))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "cut.png").write_bytes(paths[0].read_bytes()[:90])
    (tmp_path / "folder.png").mkdir()
    huge = io.BytesIO()
    Image.new("1", (12000, 9000)).save(huge, "PNG")
    (tmp_path / "huge.png").write_bytes(huge.getvalue())
    names = ["broken.png", "cut.png", "folder.png", "huge.png", "missing.png"]
    everything = [paths[0], tmp_path / names[0], paths[1], *(tmp_path / n for n in names[1:]), *paths[2:]]
    for workers in (0, 1, 3):
        found = [one for some in embed_files(embedder, everything, workers) for one in some]
        assert [one.position for one in found] == list(range(11))
        good = [one for one in found if one.vector is not None]
        np.testing.assert_array_equal(np.stack([one.vector for one in good]), embedder(paths))
        errors = {everything[one.position].name: one.error for one in found if one.error}
        assert set(errors) == set(names)
        assert "not an image" in errors["broken.png"] and "broken or truncated" in errors["cut.png"]
        assert "a folder" in errors["folder.png"] and "12000 x 9000 is more than" in errors["huge.png"]
        assert errors["missing.png"] == "No such file or directory"
        assert all(len(one.hash) == 64 and one.size for one in good)


def test_pipes_do_not_block(tmp_path, embedder):
    import os
    os.mkfifo(tmp_path / "pipe.png")
    (one,), = embed_files(embedder, [tmp_path / "pipe.png"])
    assert "no regular file" in one.error


def test_known_contents_are_not_decoded(tmp_path, embedder):
    picture(1).save(tmp_path / "a.png")
    (one,), = embed_files(embedder, [tmp_path / "a.png"], known=lambda found: True)
    assert one.vector is None and not one.error and one.hash


def test_the_reference_backend_agrees(tmp_path):
    pictures = [picture(i) for i in range(3)]
    np.testing.assert_allclose(small_embedder(device="reference")(pictures), small_embedder()(pictures), atol=1e-6)
