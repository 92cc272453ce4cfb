"""Training: what a command line asks for, and the checks of it."""
