"""ONNX: models of other frameworks run here. Needs the extra `onnx`."""
