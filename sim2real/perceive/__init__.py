"""Perception: training images, networks that find objects in them, and photometric augmentation."""
