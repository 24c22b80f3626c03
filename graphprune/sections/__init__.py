"""Layers and blocks that can be bypassed whole: how they are found, scored and removed."""
