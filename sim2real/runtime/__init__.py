"""What a robot installs: contract, encoding, networks, safety, bundles; NumPy and onnxruntime only."""
