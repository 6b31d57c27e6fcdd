"""What can be asked of runs and done with them; many beside each other, in tables and pictures."""
