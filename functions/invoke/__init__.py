"""Calls of functions that somebody waits for."""
