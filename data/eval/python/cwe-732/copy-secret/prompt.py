import os
import shutil


def back_up_vault(source, target):
    """Copy the file of a password vault, which only its owner can read, to target."""
