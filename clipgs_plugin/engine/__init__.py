"""Training with mmengine: hooks, optimiser wrapper and constructor, launching, resumable experiments."""
from clipgs_plugin.engine.checkpoint_hook import WholeCheckpointHook
from clipgs_plugin.engine.confusion_hook import ConfusionHook
from clipgs_plugin.engine.data_kinds import follow_test_data
from clipgs_plugin.engine.guard import claimed, in_a_sentence
from clipgs_plugin.engine.hooks import ModelSummaryHook, ProgressBarHook, SafeCheckpointHook, SeedHook
from clipgs_plugin.engine.launch import (
    check_batches,
    check_data,
    latest_checkpoint,
    launched,
    load_config,
    resume,
    use_autocast,
)
from clipgs_plugin.engine.optim import AutocastOptimWrapper, CLIPGSOptimWrapperConstructor
from clipgs_plugin.engine.predictions import DumpPredictions
from clipgs_plugin.engine.records import ValidationRecordHook, record_of
from clipgs_plugin.engine.table_spec import load_table

__all__ = [
    'AutocastOptimWrapper', 'CLIPGSOptimWrapperConstructor', 'ConfusionHook', 'DumpPredictions', 'ModelSummaryHook',
    'ProgressBarHook', 'SafeCheckpointHook', 'SeedHook', 'ValidationRecordHook', 'WholeCheckpointHook', 'check_batches',
    'check_data', 'claimed', 'follow_test_data', 'in_a_sentence', 'latest_checkpoint', 'launched', 'load_config',
    'load_table', 'record_of', 'resume', 'use_autocast',
]
