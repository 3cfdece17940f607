"""Evaluation: predictions, reports, and one module a task."""
