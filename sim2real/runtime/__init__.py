"""The robot's installation: contract, encoding, networks, safety, bundles; NumPy and onnxruntime only."""
