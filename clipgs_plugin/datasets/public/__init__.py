"""Published sets of splats and points, read where they lie; importing the package registers them."""
from clipgs_plugin.datasets.public.base import Entry, Listing, PublicSet
from clipgs_plugin.datasets.public.lvis import read_lvis_list
from clipgs_plugin.datasets.public.objaverse_splats import GaussianVerse, ObjaverseSplats
from clipgs_plugin.datasets.public.openshape import ABOPoints, ObjaverseLVIS
from clipgs_plugin.datasets.public.point_sets import ModelNet40HDF5, PointSet, ScanObjectNN
from clipgs_plugin.datasets.public.splat_sets import ModelNetSplats, ShapeSplats, SplatSet
from clipgs_plugin.datasets.public.splits import hash_of_uids, split_of_uid
from clipgs_plugin.datasets.public.unigs import UniGSABO, UniGSObjaverse

__all__ = ['ABOPoints', 'Entry', 'GaussianVerse', 'Listing', 'ModelNet40HDF5', 'ModelNetSplats', 'ObjaverseLVIS',
           'ObjaverseSplats', 'PointSet', 'PublicSet', 'ScanObjectNN', 'ShapeSplats', 'SplatSet', 'UniGSABO',
           'UniGSObjaverse', 'hash_of_uids', 'read_lvis_list', 'split_of_uid']
