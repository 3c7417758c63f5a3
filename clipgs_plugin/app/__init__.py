"""Pages to look at an index: one that searches and is served on this machine, one that opens from disk."""
