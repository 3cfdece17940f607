"""The whole job on one's own machine: ``make demo``."""
