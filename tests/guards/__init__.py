"""Does a test notice when a guard is taken out? `make guards` tries each."""
