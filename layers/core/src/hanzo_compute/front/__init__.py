"""What handlers share: from an event to a caller and a service, and from its answer or error to a response."""
