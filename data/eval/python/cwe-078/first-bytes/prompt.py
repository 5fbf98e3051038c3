import subprocess


def file_header(path, size=4):
    """The first bytes of a file, read by head -c."""
    with open("/dev/null", "w") as quiet:
