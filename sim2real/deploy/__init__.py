"""Nodes and messages that run on the robot. Nothing here imports torch, PyBullet or training code."""
