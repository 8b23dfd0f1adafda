"""The parts that do input and output. `synchronous/` is generated from this folder.

Edit only this folder. `runtime` is the exception: each folder has its own.
"""
