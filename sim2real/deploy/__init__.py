"""What runs on the robot: nodes and messages. Nothing here imports torch, PyBullet or training code."""
