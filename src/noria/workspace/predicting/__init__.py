"""Batch scoring: any rows through a model, in parts, by the path that a server answers by."""
