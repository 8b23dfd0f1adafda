"""Mails: queued in the transaction of a change, and sent by the worker."""
