"""Signals of one's own: where a box is. They run on the robot too, so NumPy and sim2real.runtime only."""

from sim2real.runtime.spec import SignalSpec


class BoxSignals:
    """Joints, and the way from the end effector to the top of the box; a goal is how high above it to stay [h] m."""

    needs = ("joint_pos", "joint_vel", "object_pos")

    def __init__(self, robot, chain):
        self._chain, self._ee = chain, robot.ee
        xyz, joints = ("x", "y", "z"), robot.actuators
        self.specs = {
            "joint_pos": SignalSpec(name="joint_pos", components=joints, unit="rad", frame="joint"),
            "joint_vel": SignalSpec(name="joint_vel", components=joints, unit="rad/s", frame="joint"),
            "box_error": SignalSpec(name="box_error", components=xyz, unit="m", frame="base"),
        }

    def measure(self, state, goal):
        wanted = state["object_pos"].copy()
        wanted[:, 2] += goal[:, 0]
        tip = self._chain.frames(state["joint_pos"])[self._ee][0]
        return {"joint_pos": state["joint_pos"], "joint_vel": state["joint_vel"], "box_error": tip - wanted}
