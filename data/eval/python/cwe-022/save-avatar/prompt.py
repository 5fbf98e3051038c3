import os


def save_avatar(folder, filename, data):
    """Store the bytes of an uploaded picture in the folder under its file name; returns the path."""
