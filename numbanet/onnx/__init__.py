"""ONNX: models of other frameworks run here, and ours elsewhere. Needs the extra `onnx`."""

from numbanet.onnx.export.registry import translates
from numbanet.onnx.exporter import Exported, save
from numbanet.onnx.importer import OnnxModel, load

__all__ = ["Exported", "OnnxModel", "load", "save", "translates"]
