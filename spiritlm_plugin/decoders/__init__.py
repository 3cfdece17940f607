"""Sampling under a modality constraint."""
