"""What the other services are told: the catalogue of events, the outbox and the relay."""
