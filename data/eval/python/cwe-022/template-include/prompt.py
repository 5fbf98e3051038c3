import os
import re


def expand_includes(text, folder):
    """Replace every {include NAME} in the text by the content of the file NAME in the folder."""
    def content(match):
        name = match.group(1)
