"""What a worker keeps: its predictions, the answers that retries get, and outcomes."""
