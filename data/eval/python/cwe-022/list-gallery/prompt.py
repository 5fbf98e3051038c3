import os


def pictures_in(gallery, album):
    """Sorted names in an album, a folder directly in the gallery; an empty list for anything else."""
    folder = os.path.normpath(os.path.join(gallery, album))
