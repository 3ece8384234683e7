"""Every ONNX operator that numbanet knows, one file a family. Importing this package registers them."""
