"""Drawing simulated scenes: camera, scenery, textures."""
