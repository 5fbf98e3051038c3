import random
import secrets


def reset_token():
    """A token of 32 hexadecimal digits for a password reset link."""
