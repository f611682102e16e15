"""Training: PPO on the vectorised environment, online system identification, ONNX export."""
