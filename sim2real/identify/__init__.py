"""Physics of a robot from its own recordings: logs, replay, offline identification."""
