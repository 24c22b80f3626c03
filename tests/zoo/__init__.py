"""Real architectures with random weights, on which coverage is counted: ``python -m tests.zoo``."""
