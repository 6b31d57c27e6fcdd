"""Runs that a server keeps: sent from a log on this machine, received exactly once."""
