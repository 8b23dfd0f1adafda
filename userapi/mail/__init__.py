"""Mails: what is queued in the transaction of a change, and how the worker sends it."""
