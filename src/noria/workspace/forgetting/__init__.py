"""A subject taken out everywhere: found by lineage, each store told, what is left said."""
