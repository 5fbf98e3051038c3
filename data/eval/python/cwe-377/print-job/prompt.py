import os
import random
import secrets


def submit(queue, document):
    """Write a document (text) into the queue, a folder that everybody can write to; returns the
    job's name there."""
