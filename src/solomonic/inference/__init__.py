"""Sampling, generation and sessions."""
