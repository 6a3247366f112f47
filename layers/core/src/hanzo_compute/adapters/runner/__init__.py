"""Runners: where an agent executes an attempt."""
