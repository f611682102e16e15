"""Identification of an arm's servos from recordings."""
