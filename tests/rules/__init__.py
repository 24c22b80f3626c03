"""Tests of the op rules; ``python -m tests.rules`` prints what they say of every op."""
