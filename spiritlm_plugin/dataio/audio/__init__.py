"""Recordings: reading, resampling, durations, pieces, F0."""
