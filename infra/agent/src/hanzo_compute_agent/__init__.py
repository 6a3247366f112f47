"""The agent: leases jobs from a platform, runs them through a runner, hands in what came of them."""
