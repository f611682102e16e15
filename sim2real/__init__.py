"""sim2real: train a policy in simulation, identify the robot online, deploy it over ROS 2."""

__version__ = "0.1.0"
