"""Simulated targets: what stands in for physical robots, made by others or fitted to recordings."""
