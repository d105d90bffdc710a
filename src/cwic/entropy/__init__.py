"""Integers <-> bytes. Knows nothing of images; everything that decides a probability here is integer arithmetic."""
