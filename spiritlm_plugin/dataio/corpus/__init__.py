"""Corpora: manifests, tokenized utterances, alignment, readers."""
