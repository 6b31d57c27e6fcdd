"""The HTTP of a server: connections, who may ask, what is said of itself, and what is counted."""
