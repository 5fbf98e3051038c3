import json
import pickle


class Mailbox:
    """Messages between workers, which other programs can write to as well."""

    def __init__(self):
        self.raw = []

    def exchange(self, message):
        """Encode the message and put it behind self.raw; take the first entry of self.raw off
        and return it decoded."""
