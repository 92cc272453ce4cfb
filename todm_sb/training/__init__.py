"""Training: what a command line asks for, the run, its folder, and what it leaves there."""
