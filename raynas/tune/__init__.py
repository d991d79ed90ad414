"""The Tune experiment of a search: trials, callback, schedulers, loggers."""
