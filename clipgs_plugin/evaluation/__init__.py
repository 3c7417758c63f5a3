"""Metrics: zero-shot and few-shot classification, retrieval, as mmengine metrics and as pure functions."""
from clipgs_plugin.datasets.prompts import TEMPLATES, load_templates
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.evaluation.few_shot import FewShotAccuracy, FewShotScore, few_shot_score
from clipgs_plugin.evaluation.functional import (
    cosines,
    per_class_accuracy,
    ranks,
    recall_at_k,
    retrieval_ranks,
    teacher_zero_shot,
    topk_accuracy,
)
from clipgs_plugin.evaluation.prompts import class_embeddings
from clipgs_plugin.evaluation.retrieval import RetrievalRecall
from clipgs_plugin.evaluation.zero_shot import ZeroShotAccuracy, load_class_features, save_class_features

__all__ = [
    'TEMPLATES', 'ClassEmbeddings', 'FewShotAccuracy', 'FewShotScore', 'RetrievalRecall', 'ZeroShotAccuracy',
    'class_embeddings', 'cosines', 'few_shot_score', 'load_class_features', 'load_templates', 'per_class_accuracy',
    'ranks', 'recall_at_k', 'retrieval_ranks', 'save_class_features', 'teacher_zero_shot', 'topk_accuracy',
]
