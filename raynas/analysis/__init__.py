"""Rank correlation, ground truth, data of finished runs, baselines."""
