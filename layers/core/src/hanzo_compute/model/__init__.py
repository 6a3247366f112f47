"""Values without I/O: what a job is, how it moves, what comes out of it."""
