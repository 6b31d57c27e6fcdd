"""A worker process: its deployments, its supervisor's words, and its memory."""
