"""Stores of MLflow taken in: read from a database or a server, put down by the rules of this house."""
