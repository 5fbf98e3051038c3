import subprocess


def shout(text):
    """The text in capital letters, made by the tr program."""
