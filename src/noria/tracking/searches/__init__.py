"""The language of searches for runs, and their answers by an index."""
