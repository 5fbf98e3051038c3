import os


def sorted_names(csv_path):
    """First column of a comma separated file, sorted; the work is done by cut and sort."""
