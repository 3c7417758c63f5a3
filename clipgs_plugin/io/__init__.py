"""Splat files in and out."""


def read_gaussians(path):
    raise NotImplementedError


def write_gaussians(cloud, path):
    raise NotImplementedError
