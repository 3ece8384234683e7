"""Hooks: feature maps and gradients are watched, gradients are scaled and clipped, a layer's input is changed."""

import numpy as np
import torch
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 1))


def train(model):
    activations, gradients, norms = {}, {}, []

    def keep(name):
        def hook(module, inputs, output):
            activations[name] = output.detach().abs().mean().item()
        return hook

    def watch(module, grad_input, grad_output):
        gradients.setdefault(type(module).__name__, []).append(grad_output[0].norm().item())

    handles = [layer.register_forward_hook(keep(name)) for name, layer in model.named_modules() if name]
    handles.append(model[2].register_full_backward_hook(watch))
    handles.append(model[0].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,)))
    for p in model.parameters():
        p.register_hook(lambda grad: torch.clamp(grad, -0.1, 0.1))
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.standard_normal((16, 1, 8, 8)).astype("float32"), requires_grad=True)
    y = torch.tensor(rng.standard_normal((16, 1)).astype("float32"))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=0.01, alpha=0.9)
    losses = []
    for _ in range(10):
        hidden = model[:2](x)
        hidden.retain_grad()
        hidden.register_hook(lambda grad: norms.append(grad.norm().item()))
        loss = nn.MSELoss()(model[2:](hidden), y) + 1e-3 * hidden.pow(2).sum()
        optimizer.zero_grad()
        loss.backward()
        assert hidden.grad.shape == hidden.shape and x.grad is not None
        optimizer.step()
        losses.append(loss.item())
    assert set(activations) == {"0", "1", "2", "3", "4", "5"} and len(gradients["Conv2d"]) == len(norms) == 10
    assert all(p.grad.abs().max() <= 0.1 for p in model.parameters())
    for handle in handles:
        handle.remove()
    activations.clear()
    model(x)
    assert not activations
    return losses + list(gradients["Conv2d"]) + norms
