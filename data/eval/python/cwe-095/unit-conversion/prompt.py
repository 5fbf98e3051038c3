import re

FACTORS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0}


def to_meters(length):
    """Metres of a length such as "12.5 km" or "3 mm"."""
