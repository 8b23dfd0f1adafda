"""Lockout: waiting times after wrong passwords, whether or not the account exists."""
