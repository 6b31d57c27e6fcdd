"""Trials on real traffic: begun by people, judged by what became of predictions, ended by their rules."""
