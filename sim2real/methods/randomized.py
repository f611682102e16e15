"""One policy for all physics, told nothing about them (Tobin et al. 2017, Peng et al. 2018).

``ppo.lstm`` gives it a memory and ``task.history`` past observations, with which it can identify by itself.
"""

from __future__ import annotations

from sim2real.methods.base import PolicyMethod


class Randomized(PolicyMethod):
    """PPO on randomized physics."""
