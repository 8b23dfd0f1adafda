"""The parts that wait. `synchronous/` is generated from this folder; edit only here.

`runtime` is the exception: each folder has its own.
"""
