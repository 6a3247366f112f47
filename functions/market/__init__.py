"""Market: plans, and what the router knows about regimes and prices."""
