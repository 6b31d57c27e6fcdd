"""Exports to open files and back; backups and what is made of them."""
