"""The parts that do input and output, for threads. All but `runtime` are generated."""
