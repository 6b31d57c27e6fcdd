"""Where rows come from: files, databases, frames. Each is read in pieces; what is no row is kept as it was.

`noria.lake.sources.opening` finds out what something is and opens it.
"""

__all__: list[str] = []
