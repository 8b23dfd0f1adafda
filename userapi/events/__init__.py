"""Events for other services: the catalogue, the outbox and the relay."""
