"""Lockout: who typed the wrong password too often waits, whether or not the account exists."""
