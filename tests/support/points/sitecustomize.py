"""Loaded by every Python process of a platform under test: its folder is on PYTHONPATH."""

import fault_points

fault_points.install()
