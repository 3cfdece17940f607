"""Training: the trainer that recipes share, and one module a part."""
