"""Inputs as they come, made from a seed: each ends well, or in its name."""
