"""Signing in: tokens, keys, and the use cases of logging in, refreshing and logging out."""
