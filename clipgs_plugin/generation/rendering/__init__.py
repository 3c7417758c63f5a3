"""Images of meshes: camera poses, renderers and surfaces."""
from clipgs_plugin.generation.rendering.cameras import ViewRule
from clipgs_plugin.generation.rendering.egl import NoRenderer
from clipgs_plugin.generation.rendering.meshes import choose_renderer, render_mesh

__all__ = ['NoRenderer', 'ViewRule', 'choose_renderer', 'render_mesh']
