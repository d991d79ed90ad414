"""Readers of data sets on disk: each returns two sources, training and test."""
