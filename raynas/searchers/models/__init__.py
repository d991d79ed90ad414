"""Surrogate models and acquisition functions of the searchers."""
