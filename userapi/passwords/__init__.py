"""Passwords: how they are hashed, which are accepted, and the links that set them."""
