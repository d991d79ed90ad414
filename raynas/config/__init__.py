"""The settings of a run: one validated tree, how it is loaded, recipes."""
