"""Interfaces for inference: configs and models by name, embeddings, search."""
from clipgs_plugin.apis.configs import get_config, list_configs
from clipgs_plugin.apis.doctor import diagnose
from clipgs_plugin.apis.doctor_findings import Diagnosis, Finding
from clipgs_plugin.apis.export import export_model
from clipgs_plugin.apis.inferencer import CLIPGSInferencer
from clipgs_plugin.apis.model_list import list_models
from clipgs_plugin.apis.models import get_model
from clipgs_plugin.apis.scene import label_scene
from clipgs_plugin.apis.stream import Embedded, stream_embeddings
from clipgs_plugin.apis.teacher import embed_classes
from clipgs_plugin.datasets.preparation import Failed
from clipgs_plugin.search import SearchIndex

__all__ = ['CLIPGSInferencer', 'Diagnosis', 'Embedded', 'Failed', 'Finding', 'SearchIndex', 'diagnose', 'embed_classes',
           'export_model', 'get_config', 'get_model', 'label_scene', 'list_configs', 'list_models', 'stream_embeddings']
