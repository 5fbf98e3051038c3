import hashlib
import os
import random


def protect(password):
    """(salt, digest) for a password: 16 bytes of salt and the scrypt digest with n=1024, r=8, p=1."""
