"""Checks that a test fails if a guard is removed: `make guards` removes each."""
