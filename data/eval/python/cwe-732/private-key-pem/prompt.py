import os
from pathlib import Path


def save_key(folder, name, pem):
    """Save a private key (PEM text) as FOLDER/NAME.pem and return its path."""
    path = Path(folder) / (name + ".pem")
