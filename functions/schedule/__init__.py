"""Scheduled function: the reconciler."""
