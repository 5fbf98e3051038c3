import random
import secrets
import string


def invitation(base_url, email):
    """URL BASE_URL/join/CODE for an e-mail address; CODE has ten letters that nobody can guess."""
