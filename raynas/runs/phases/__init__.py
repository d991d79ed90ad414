"""The phases of a run, and the pipeline that orders them by what they require."""
