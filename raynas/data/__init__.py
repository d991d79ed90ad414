"""Data sets: readers, decoding, splits, transforms."""
