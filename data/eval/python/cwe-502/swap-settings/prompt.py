import pickle
import os
from json import dump, load


def swap_settings(path, new):
    """Keep the new settings (a dictionary) in the file at path and return those that were in
    it; {} if none were."""
    old = {}
