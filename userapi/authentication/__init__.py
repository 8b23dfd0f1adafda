"""Authentication: log-in, refresh, log-out, passwords by their users, tokens and signing keys."""
