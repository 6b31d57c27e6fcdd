"""Wire formats, translated at the edge: each to and from the plain columns of `noria.serving.predictor`."""
