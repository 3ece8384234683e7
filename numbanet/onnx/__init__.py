"""ONNX: models of other frameworks run here. Needs the extra `onnx`."""

from numbanet.onnx.importer import OnnxModel, load

__all__ = ["OnnxModel", "load"]
