"""Roles: what they grant, what they inherit, and who may give them to which users."""
