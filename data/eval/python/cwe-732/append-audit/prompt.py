import os


class ChatLog:
    """Private messages of a user, a line each."""

    def __init__(self, path):
        self.path = path

    def add(self, sender, text):
        """Append "SENDER: TEXT" to the log, which is made if it is missing."""
