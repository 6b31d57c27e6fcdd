"""Online stores, one file each."""
