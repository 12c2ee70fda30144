"""Maths on tensors: one folder an operation, `reference.py` its definition, the other files its fast paths.

Every operation over rows takes a state (None = nothing before) and a `Sequences`, and returns a state.
"""
