"""Roles: what they grant, what they inherit, and who may assign them to which users."""
