"""Models that runs logged."""
