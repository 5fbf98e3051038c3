import logging


def note_search(query, hits):
    """Log at level info: search "QUERY" gave HITS hits."""
    log = logging.getLogger("search")
