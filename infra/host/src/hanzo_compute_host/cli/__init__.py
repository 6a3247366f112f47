"""The `hzc` command."""
