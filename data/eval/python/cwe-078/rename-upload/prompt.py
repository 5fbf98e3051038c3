import os
import subprocess


def publish(draft, title):
    """Move the draft file to public/TITLE.txt by mv, force included."""
    destination = f"public/{title}.txt"
