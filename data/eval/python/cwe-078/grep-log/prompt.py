from subprocess import PIPE, Popen


def matching_lines(word, path):
    """Lines of the file at path that contain the word, found by grep -F."""
