"""What a team does with model versions: cards, history, comparison, explanation, names."""
