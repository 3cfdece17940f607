"""Readers of corpora: generators of records, for `prepare`."""
