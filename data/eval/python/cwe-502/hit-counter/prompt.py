import marshal
import pickle
from pathlib import Path


def count_visit(store, page):
    """Raise the visits of a page by one in the store, a file with the visits of all pages;
    returns the new number."""
    store = Path(store)
