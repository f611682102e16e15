"""Pixel-level domain adaptation: rendered images made to look like a camera's, and the gate that refuses to harm."""
