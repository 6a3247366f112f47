"""What the platform does, step by step, on ports alone."""
