"""Queue function: places waiting jobs in pools."""
