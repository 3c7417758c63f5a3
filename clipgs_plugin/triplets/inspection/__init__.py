"""Inspection of triplet datasets: checks for damage, statistics, an HTML page and a contact sheet."""
from clipgs_plugin.triplets.inspection.page import write_page
from clipgs_plugin.triplets.inspection.result import Inspection
from clipgs_plugin.triplets.inspection.run import inspect
from clipgs_plugin.triplets.inspection.sheet import contact_sheet

__all__ = ['Inspection', 'contact_sheet', 'inspect', 'write_page']
