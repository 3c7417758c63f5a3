"""Search among embeddings: an index that grows, filters on its metadata, queries of several parts."""
from clipgs_plugin.search.building import build_approximate
from clipgs_plugin.search.card import IndexCard
from clipgs_plugin.search.filters import Filter, parse_filter
from clipgs_plugin.search.index import Match, SearchIndex
from clipgs_plugin.search.mixing import mix_queries
from clipgs_plugin.search.writer import IndexWriter, empty_index

__all__ = ['Filter', 'IndexCard', 'IndexWriter', 'Match', 'SearchIndex', 'build_approximate', 'empty_index',
           'mix_queries', 'parse_filter']
