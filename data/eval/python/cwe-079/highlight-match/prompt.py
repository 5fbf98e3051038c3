import html


def highlight(text, word):
    """The text with every occurrence of the word inside <mark> and </mark>."""
