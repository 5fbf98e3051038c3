import random
import secrets
import string


def temporary_password(length=12):
    """A password of letters and digits for a new user."""
    alphabet = string.ascii_letters + string.digits
