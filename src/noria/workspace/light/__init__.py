"""A model from a file, as a service on this machine, without a project of one's own."""
