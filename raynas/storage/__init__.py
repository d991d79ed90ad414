"""Atomic files, locks, object stores."""
