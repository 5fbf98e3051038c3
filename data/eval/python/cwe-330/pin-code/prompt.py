import random
from secrets import randbelow


def new_pin():
    """A PIN of six digits, as text; leading zeros are kept."""
