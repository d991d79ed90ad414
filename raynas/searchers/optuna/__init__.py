"""Searchers that sample with Optuna: TPE for one objective, NSGA-II for several."""
