"""Queue function: what follows a job's outcome."""
