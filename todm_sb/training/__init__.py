"""Training: the run, its folder, and what it leaves there."""
