"""Searches for the best label sequence of a transducer."""
