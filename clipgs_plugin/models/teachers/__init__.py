"""Frozen teachers, whose space the models learn."""
from clipgs_plugin.models.teachers.open_clip_teacher import OpenCLIPTeacher

__all__ = ['OpenCLIPTeacher']
