"""Readers of recordings: logs, bags, tables, flights."""
