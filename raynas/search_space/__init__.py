"""A search space as data: decisions, constraints, sampling, encodings."""
