"""The phases of a run, its budget, warm start, dry run."""
