"""Captions of objects, by rules and by models."""
