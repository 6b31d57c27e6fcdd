"""`noria up`: one leader, its children, jobs, streams and requests."""
