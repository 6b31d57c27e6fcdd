"""Models of every kind as a worker opens them, each by its format, and held against their stored rows."""
