"""Policies flown on targets that no training has seen, and the report about it."""
