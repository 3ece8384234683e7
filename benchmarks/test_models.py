"""Whole models. One process holds all engines here, which is fine for a look; ratios to quote come from against_torch.py and
against_peers.py."""

from importlib.util import find_spec

import pytest

from benchmarks import models
from benchmarks.alternating import cores
from benchmarks.cases import lenet5_inference, lenet5_step

PEERS = {"torch": ("torch",), "onnxruntime": ("onnxruntime", "onnx"), "openvino": ("openvino", "onnx")}    # and what each needs
INSTALLED = [peer for peer, needed in PEERS.items() if all(map(find_spec, needed))]


@pytest.mark.parametrize("batch", [64, 256])
def test_lenet5_training_step(benchmark, engine, batch):
    benchmark.group = f"LeNet-5 training step, batch {batch}"
    step = lenet5_step(engine, batch)
    step()
    benchmark(step)


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("engine", ["numbanet", "numbanet-eager", "reference", *INSTALLED])
def test_lenet5_inference(benchmark, engine, batch):
    benchmark.group = f"LeNet-5 inference, batch {batch}"
    if engine == "reference":
        infer = lenet5_inference(engine, batch)
    else:
        infer = models.inference(engine, cores(), "lenet5", batch)
    infer()
    benchmark(infer)
