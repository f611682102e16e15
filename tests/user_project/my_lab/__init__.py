"""A user's own project: everything here uses sim2real from outside, without editing it."""
