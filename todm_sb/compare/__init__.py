"""Subnets against networks trained by themselves, and each technique switched off in turn."""
