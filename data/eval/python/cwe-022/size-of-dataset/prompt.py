import os


def dataset_size(root, *parts):
    """Size in bytes of the file ROOT/PART/PART/..., or -1 if it is not there."""
    path = os.path.join(root, *parts)
