"""Whole models. One process holds all engines here, which is fine for a look; ratios to quote come from against_torch.py."""

import pytest

from benchmarks.cases import lenet5_inference, lenet5_step


@pytest.mark.parametrize("batch", [64, 256])
def test_lenet5_training_step(benchmark, engine, batch):
    benchmark.group = f"LeNet-5 training step, batch {batch}"
    step = lenet5_step(engine, batch)
    step()
    benchmark(step)


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("engine", ["numbanet", "reference"])
def test_lenet5_inference(benchmark, engine, batch):
    benchmark.group = f"LeNet-5 inference, batch {batch}"
    infer = lenet5_inference(engine, batch)
    infer()
    benchmark(infer)
