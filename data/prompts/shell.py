import os
import subprocess


def convert_document(folder, name, timeout=60):
    """Convert an uploaded document to PDF with pandoc; returns the PDF's path."""
    source = os.path.join(folder, os.path.basename(name))
    if not os.path.isfile(source):
        raise FileNotFoundError(source)

    target = source + ".pdf"
