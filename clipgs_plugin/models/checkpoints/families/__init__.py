"""Families of point-cloud models: how each names and stores its weights, one module a family."""
