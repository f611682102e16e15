"""Image datasets, lenses, image files and image messages."""
