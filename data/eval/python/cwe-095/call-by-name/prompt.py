import math


def apply_function(name, x):
    """sqrt, floor, ceil or fabs of x, chosen by name."""
