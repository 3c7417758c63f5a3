"""Pictures of objects: by which rule the cameras stand, and how meshes are rendered."""
from clipgs_plugin.triplets.views.cameras import ViewRule
from clipgs_plugin.triplets.views.egl import NoRenderer
from clipgs_plugin.triplets.views.rendering import choose_renderer, render_mesh

__all__ = ['NoRenderer', 'ViewRule', 'choose_renderer', 'render_mesh']
