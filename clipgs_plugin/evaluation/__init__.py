"""Metrics: classification (zero-shot, supervised, few-shot) and retrieval, as mmengine metrics and pure functions."""
from clipgs_plugin.datasets.prompts import TEMPLATES, load_templates
from clipgs_plugin.evaluation.bootstrap import paired_difference
from clipgs_plugin.evaluation.class_file import ClassEmbeddings
from clipgs_plugin.evaluation.classification import ClassificationAccuracy
from clipgs_plugin.evaluation.confusion import ConfusionMatrix
from clipgs_plugin.evaluation.few_shot import FewShotAccuracy, FewShotScore, few_shot_score
from clipgs_plugin.evaluation.functional import (
    confusion_matrix,
    cosines,
    per_class_accuracy,
    ranks,
    recall_at_k,
    teacher_zero_shot,
    topk_accuracy,
)
from clipgs_plugin.evaluation.instances import InstanceMatch, match_instances
from clipgs_plugin.evaluation.prompts import class_embeddings
from clipgs_plugin.evaluation.ranking import Ranking, rank_gallery, rank_scores, retrieval_ranks
from clipgs_plugin.evaluation.record import EvaluationRecord
from clipgs_plugin.evaluation.retrieval import RetrievalRecall
from clipgs_plugin.evaluation.zero_shot import ZeroShotAccuracy

__all__ = [
    'TEMPLATES', 'ClassEmbeddings', 'ClassificationAccuracy', 'ConfusionMatrix', 'EvaluationRecord',
    'FewShotAccuracy', 'FewShotScore', 'InstanceMatch', 'Ranking', 'RetrievalRecall', 'ZeroShotAccuracy',
    'class_embeddings', 'confusion_matrix', 'cosines', 'few_shot_score', 'load_templates', 'match_instances',
    'paired_difference', 'per_class_accuracy', 'rank_gallery', 'rank_scores', 'ranks', 'recall_at_k',
    'retrieval_ranks', 'teacher_zero_shot', 'topk_accuracy',
]
