"""Accounts: registering, creating, finding, changing, suspending and deleting users."""
