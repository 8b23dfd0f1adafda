"""Bulk changes of all users that match a filter, run by the worker."""
