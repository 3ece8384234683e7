"""Batch norm over processes, which are threads here: the whole batch's statistics, outputs and gradients."""

import copy
import threading

import numpy as np
import pytest

import numbanet
from numbanet import nn
from numbanet.errors import ShapeError


class Room:
    """A group for each of `size` threads: what one says, all hear."""

    def __init__(self, size):
        self.barrier, self.said = threading.Barrier(size, timeout=20), [None] * size

    def group(self, rank):
        class Group:
            def gather(_, values):
                self.said[rank] = values
                self.barrier.wait()
                heard = np.stack(self.said)
                self.barrier.wait()
                return heard
        return Group()


def together(parts, work):
    """What `work(rank, part, group)` gives in a thread for each part."""
    room, results, errors = Room(len(parts)), [None] * len(parts), []

    def run(rank):
        try:
            results[rank] = work(rank, parts[rank], room.group(rank))
        except Exception as error:
            errors.append(error)
            room.barrier.abort()
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
    if errors:
        raise errors[0]
    return results


def network(shape, device):
    numbanet.manual_seed(3)
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    model = nn.Sequential(kind(shape[1], momentum=0.3), nn.Tanh(), nn.Sequential(kind(shape[1], eps=0.1), nn.Flatten())).to(device)
    for i, p in enumerate(model.parameters()):
        p.data.copy_(numbanet.tensor(np.random.default_rng(i).uniform(0.5, 1.5, p.shape).astype(np.float32), device=device))
    return model


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("shape, sizes", [((9, 5), (1, 5, 3)), ((6, 3, 5, 7), (3, 3)), ((5, 2, 2, 3, 3), (4, 1))])
def test_as_one_process_with_the_whole_batch(shape, sizes, device, rng):
    x = (rng.standard_normal(shape) * 3 + 100).astype(np.float32)
    factors = rng.standard_normal((shape[0], int(np.prod(shape[1:])))).astype(np.float32)

    def pass_(model, rows):
        part = numbanet.tensor(x[rows], device=device, requires_grad=True)
        y = model(part)
        (y * numbanet.tensor(factors[rows], device=device)).sum(1).mean().backward()        # the mean over its samples
        return y.detach().numpy(), part.grad.numpy(), [p.grad.numpy() for p in model.parameters()], [
            b.numpy().copy() for _, b in model.named_buffers()]

    whole = network(shape, device)
    expected = pass_(whole, slice(None))
    ends = np.cumsum(sizes)
    parts = [slice(int(e) - n, int(e)) for e, n in zip(ends, sizes)]
    found = together(parts, lambda rank, rows, group: pass_(nn.SyncBatchNorm.convert_sync_batchnorm(network(shape, device), group), rows))
    shares = [n / shape[0] for n in sizes]
    np.testing.assert_allclose(np.concatenate([f[0] for f in found]), expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.concatenate([f[1] * s for f, s in zip(found, shares)]), expected[1], rtol=1e-3, atol=1e-5)
    for i, gradient in enumerate(expected[2]):
        np.testing.assert_allclose(sum(f[2][i] * s for f, s in zip(found, shares)), gradient, rtol=1e-3, atol=1e-4)
    for rank in range(len(sizes)):
        for mine, buffer in zip(found[rank][3], expected[3], strict=True):
            np.testing.assert_allclose(mine, buffer, rtol=1e-5)
        assert all(np.array_equal(a, b) for a, b in zip(found[rank][3], found[0][3]))       # bit for bit on all


def test_conversion_keeps_everything(rng):
    model = network((4, 3, 5, 5), "reference").eval()
    names, x = list(model.state_dict()), numbanet.tensor(rng.standard_normal((4, 3, 5, 5)).astype(np.float32), device="reference")
    before, parameters = model(x).detach().numpy(), list(model.parameters())
    model[0].weight.requires_grad = False
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert converted is model and isinstance(model[2][0], nn.SyncBatchNorm) and model[2][0].eps == 0.1 and not model[0].training
    assert list(model.state_dict()) == names and all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert not model[0].weight.requires_grad
    np.testing.assert_array_equal(model(x).detach().numpy(), before)
    alone = network((4, 3, 5, 5), "reference")(x)                           # without a group this is batch norm
    np.testing.assert_array_equal(model.train()(x).detach().numpy(), alone.detach().numpy())
    alone = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(4, affine=False, track_running_stats=False))
    assert isinstance(alone, nn.SyncBatchNorm) and alone.weight is None and alone.running_mean is None
    assert nn.SyncBatchNorm.convert_sync_batchnorm(alone) is alone
    assert isinstance(copy.deepcopy(model)[0], nn.SyncBatchNorm)


def test_one_value_on_all_processes_together():
    layer = nn.SyncBatchNorm(3, process_group=Room(1).group(0))
    with pytest.raises(ShapeError, match="more than 1 value per channel .* on all processes together"):
        layer(numbanet.zeros(1, 3))
    with pytest.raises(ShapeError, match="values on every process"):
        layer(numbanet.zeros(0, 3))
