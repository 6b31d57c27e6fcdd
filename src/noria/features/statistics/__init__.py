"""What features look like, what they tell of a label and of each other, and whether one knows too much."""
