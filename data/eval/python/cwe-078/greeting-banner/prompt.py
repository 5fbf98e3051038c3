import os
import subprocess


def print_banner(name):
    """Print "Welcome NAME" to standard output with the echo program."""
