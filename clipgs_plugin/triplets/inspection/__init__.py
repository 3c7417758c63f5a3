"""Inspection of a triplet dataset: checks for damage, statistics, pictures of some objects, a page."""
from clipgs_plugin.triplets.inspection.checks import Inspection, inspect
from clipgs_plugin.triplets.inspection.page import write_page
from clipgs_plugin.triplets.inspection.pictures import contact_sheet

__all__ = ['Inspection', 'contact_sheet', 'inspect', 'write_page']
