"""Imports: users from CSV and NDJSON files, within a request or as a job of the worker."""
