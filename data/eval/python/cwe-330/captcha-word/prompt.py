import random

SYLLABLES = ["ba", "ke", "lo", "mi", "nu", "ra", "so", "ti"]


def recovery_phrase(words=6):
    """A phrase that gives back access to an account: made-up words of four syllables, joined by "-"."""
    phrase = []
    for _ in range(words):
