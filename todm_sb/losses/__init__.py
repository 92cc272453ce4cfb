"""Losses: the transducer lattice and alpha-divergence distillation on it."""
