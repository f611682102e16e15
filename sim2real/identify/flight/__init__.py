"""Identification of a quadrotor from recordings."""
