"""A task as a Gymnasium environment: an SO-101 pushes a puck, with random commands."""

import gymnasium

env = gymnasium.make("sim2real.learn.gym_env:sim2real/So101Push-v0", randomize="all", tell=("object_mass",))
observation, info = env.reset(seed=0)
print("observation", observation.shape, "told", info["parameters"])
total = 0.0
for _ in range(50):
    observation, reward, terminated, truncated, info = env.step(0.2 * env.action_space.sample())
    total += reward
    if terminated or truncated:
        observation, info = env.reset()
print(f"return of 50 steps: {total:.2f}")
env.close()
