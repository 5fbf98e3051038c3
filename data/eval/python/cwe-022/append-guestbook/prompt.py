import os


class Guestbooks:
    """One text file for each event."""

    def __init__(self, root):
        self.root = root

    def sign(self, event, guest):
        """Append the guest's name as a line to the event's file."""
