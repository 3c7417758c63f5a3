"""Reading and writing splat files; every format is read into a :class:`GaussianCloud` in the INRIA frame."""
from clipgs_plugin.io.formats import (
    FORMATS,
    SUFFIXES,
    Format,
    find_splats,
    format_of_file,
    format_of_name,
    read_gaussians,
    walk_splats,
    write_gaussians,
)
from clipgs_plugin.io.notes import read_notes

__all__ = ['FORMATS', 'SUFFIXES', 'Format', 'find_splats', 'format_of_file', 'format_of_name', 'read_gaussians',
           'read_notes', 'walk_splats', 'write_gaussians']
