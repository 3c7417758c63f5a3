"""Search among embeddings: an index that grows, filters on its metadata, queries of several parts."""
from clipgs_plugin.search.card import IndexCard
from clipgs_plugin.search.filters import Filter, parse_filter
from clipgs_plugin.search.index import Match, SearchIndex
from clipgs_plugin.search.writer import IndexWriter

__all__ = ['Filter', 'IndexCard', 'IndexWriter', 'Match', 'SearchIndex', 'parse_filter']
