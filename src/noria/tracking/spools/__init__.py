"""Logs on the local disk in which runs acknowledge, and how they are emptied into the database."""
