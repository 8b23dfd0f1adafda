"""Schemas of requests and responses. They check the form of requests. The use cases check the rules
that need the database.
"""
