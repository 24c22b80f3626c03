"""What can be removed: dimensions, their kinds and names, the scores of their units, and budgets."""
