"""The training simulator: one Bullet client, vectorised robots, randomized physics."""
