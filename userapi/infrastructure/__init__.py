"""Access to the servers the service uses, and tools that every subject shares."""
