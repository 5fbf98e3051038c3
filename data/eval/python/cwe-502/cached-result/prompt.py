import json
import os
import pickle


def cached(path, compute):
    """The value kept in the file at path; if there is no file yet, compute() is called and its
    value is kept there."""
