"""Collecting real images into datasets."""
