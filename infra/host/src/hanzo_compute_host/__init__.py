"""The platform on a single machine: host process, queues, HTTP front and the hzc command."""
