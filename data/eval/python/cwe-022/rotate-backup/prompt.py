import os
import shutil


def back_up(vault, name):
    """Copy VAULT/NAME to VAULT/NAME.bak; returns the path of the copy."""
    source = os.path.join(vault, name)
