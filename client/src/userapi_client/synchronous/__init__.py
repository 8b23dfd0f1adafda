"""The parts that wait, for threads. Generated from `asynchronous/`, but for `runtime`."""
