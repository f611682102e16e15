"""What a robot's own recordings say about its physics: logs, replay, offline identification."""
