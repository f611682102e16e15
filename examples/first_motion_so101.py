"""First motion through a driver: arm, a small motion of one joint, hold, disarm. Here on the simulated SO-101.

A real arm's driver takes the same calls; keep a hand on its power switch.
"""

import time

from robot_drivers import load_driver

JOINT, RATE_HZ = "shoulder_pan", 50
driver = load_driver("target", robot="so101", task="reach")
driver.connect()
try:
    state = driver.read()
    command = dict(zip(state.joint_names, state.joint_pos.tolist(), strict=True))  # where it is now
    before = command[JOINT]
    driver.arm(True)  # nothing moves before this
    for _ in range(RATE_HZ):
        command[JOINT] += 0.1 / RATE_HZ
        driver.command(command)
        time.sleep(1.0 / RATE_HZ)
    driver.hold()
    state = driver.read()
    moved = state.joint_pos[state.joint_names.index(JOINT)] - before
    print(f"{JOINT} moved by {moved:.3f} rad")
finally:
    driver.stop()
    driver.disconnect()
