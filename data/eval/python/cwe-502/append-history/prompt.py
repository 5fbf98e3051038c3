import json
import os
import pickle


def remember(path, item):
    """Add an item to the list that is kept in the file at path (none at first); returns the whole list."""
    items = []
