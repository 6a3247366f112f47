"""The tenant's HTTP API: jobs, blobs, dead letters."""
