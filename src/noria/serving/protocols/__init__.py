"""The routes of a worker, one module for each protocol that it speaks: from an HTTP request to its reply."""
