"""Scheduled function: learns from what became of placements."""
