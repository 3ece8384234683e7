"""Whole models for each engine: a function without arguments that infers a batch, or makes one training step.

Engines: "numbanet" (compiled), "numbanet-released" (the same with release_weights=True), "numbanet-eager", and the peers "torch" (eager,
NCHW), "torch-channels-last", "torch-compile" (with freezing for inference), "onnxruntime" and "openvino", the last two on our ONNX export.
All compute in float32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

INFERENCE = (("resnet50", 1), ("resnet50", 16), ("resnet18", 16), ("vgg16", 1), ("vgg16", 8), ("alexnet", 1), ("alexnet", 16),
             ("googlenet", 1), ("googlenet", 16), ("densenet121", 8), ("mobilenet_v2", 16), ("lenet5", 1), ("lenet5", 256))
TRAINING = (("resnet18", 16), ("resnet50", 16), ("vgg16", 8), ("alexnet", 32), ("googlenet", 16), ("lenet5", 64), ("lenet5", 256))
TORCH = ("torch", "torch-channels-last", "torch-compile")
PEERS = {"inference": (*TORCH, "onnxruntime", "openvino"), "training": TORCH}
MOMENTUM = {"lr": 1e-4, "momentum": 0.9}


def images(model: str, batch: int) -> np.ndarray:
    shape = (1, 32, 32) if model == "lenet5" else (3, 224, 224)
    return np.random.default_rng(0).standard_normal((batch, *shape), dtype=np.float32)


def labels(model: str, batch: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 10 if model == "lenet5" else 1000, batch)


def inference(engine: str, threads: int, model: str, batch: int) -> Callable[[], object]:
    if engine.startswith("torch"):
        return _torch_inference(engine, model, batch)
    import numbanet
    net, x = numbanet.create_model(model).eval(), numbanet.tensor(images(model, batch))
    if engine in ("numbanet", "numbanet-released"):
        compiled = numbanet.compile(net, x, release_weights=engine == "numbanet-released")
        return lambda: compiled(x)
    if engine == "numbanet-eager":
        def run():
            with numbanet.no_grad():
                return net(x)
        return run
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        numbanet.onnx.save(net, path, x, dynamic_batch=False)
        return {"onnxruntime": _onnxruntime, "openvino": _openvino}[engine](path, threads, images(model, batch))


def _onnxruntime(path: Path, threads: int, x: np.ndarray) -> Callable[[], object]:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: x})


def _openvino(path: Path, threads: int, x: np.ndarray) -> Callable[[], object]:
    import openvino
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(str(path)), "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    return request.infer


def training(engine: str, threads: int, model: str, batch: int) -> Callable[[], object]:
    """SGD with momentum on cross-entropy; LeNet-5 with AdamW."""
    if engine.startswith("torch"):
        return _torch_training(engine, model, batch)
    import numbanet
    net, x, y = numbanet.create_model(model), numbanet.tensor(images(model, batch)), numbanet.tensor(labels(model, batch))
    optimizer = numbanet.optim.AdamW(net.parameters(), 1e-3) if model == "lenet5" else numbanet.optim.SGD(net.parameters(), **MOMENTUM)

    def loss(outputs, y):
        cross_entropy = numbanet.functional.cross_entropy
        if not isinstance(outputs, tuple):
            return cross_entropy(outputs, y)
        return cross_entropy(outputs[0], y) + 0.3 * sum(cross_entropy(o, y) for o in outputs[1:])
    if engine == "numbanet":
        step = numbanet.compile(net, (x, y), loss=loss, optimizer=optimizer)
        return lambda: step(x, y).item()

    def run():
        optimizer.zero_grad()
        value = loss(net(x), y)
        value.backward()
        optimizer.step()
        return value.item()
    return run


def torch_model(model: str):
    """torchvision's model, or LeNet-5 as in our zoo."""
    import torch
    nn = torch.nn
    if model == "lenet5":
        return nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))
    try:
        import torchvision
    except RuntimeError:        # beside a PyTorch that it was not built for: models need none of its operators, but importing asks for two
        global _library
        _library = torch.library.Library("torchvision", "DEF")
        _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    options = {"init_weights": False} if model == "googlenet" else {}
    return torchvision.models.get_model(model, weights=None, **options)


def _torch(engine: str, model: str, batch: int):
    import torch
    net, x = torch_model(model), torch.from_numpy(images(model, batch))
    if engine != "torch":
        net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    return net, x


def _torch_inference(engine: str, model: str, batch: int) -> Callable[[], object]:
    import torch
    if engine == "torch-compile":
        os.environ.setdefault("TORCHINDUCTOR_FREEZING", "1")
        import torch._inductor.config
        torch._inductor.config.freezing = True
    net, x = _torch(engine, model, batch)
    net = net.eval()
    if engine == "torch-compile":
        net = torch.compile(net)

    def run():
        with torch.no_grad():
            return net(x)
    return run


def _torch_training(engine: str, model: str, batch: int) -> Callable[[], object]:
    import torch
    net, x = _torch(engine, model, batch)
    y, cross_entropy = torch.from_numpy(labels(model, batch)), torch.nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3) if model == "lenet5" else torch.optim.SGD(net.parameters(), **MOMENTUM)
    net.train()
    run_net = torch.compile(net) if engine == "torch-compile" else net

    def run():
        optimizer.zero_grad()
        outputs = run_net(x)
        if isinstance(outputs, tuple):
            loss = cross_entropy(outputs[0], y) + 0.3 * sum(cross_entropy(o, y) for o in outputs[1:] if o is not None)
        else:
            loss = cross_entropy(outputs, y)
        loss.backward()
        optimizer.step()
        return loss.item()
    return run
