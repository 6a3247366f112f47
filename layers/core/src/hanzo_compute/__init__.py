"""Hanzo Compute core: the job model, the services that move a job, and the ports they need."""

__version__ = "0.1.0"
