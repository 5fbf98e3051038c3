import random
import uuid


class Sessions:
    """Who is logged in."""

    def __init__(self):
        self.users = {}

    def open(self, user):
        """Remember the user under a new session id (text), which is returned."""
