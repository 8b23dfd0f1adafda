"""What is wrong with an installation, and how to fix it: one module per subject.

A module has up to two functions. `check` returns the state of a dependency: `userapi.health` calls
it. `findings` yields what `flask doctor` prints.
"""
