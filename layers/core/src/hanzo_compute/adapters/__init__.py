"""Implementations of the ports; only wiring chooses among them."""
