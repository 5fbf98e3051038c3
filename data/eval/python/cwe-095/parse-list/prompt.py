import ast


def parse_numbers(text):
    """The list of numbers in a text such as "[3, 1.5, -2]"."""
