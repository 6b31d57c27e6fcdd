"""Wire formats, translated at the edge: each from bytes to a request, and from a prediction to bytes.

They are pure functions that know no model but the columns it takes.
"""
