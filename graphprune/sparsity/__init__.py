"""Unstructured zeros: which weights can have them, in which pattern, and on which schedule."""
