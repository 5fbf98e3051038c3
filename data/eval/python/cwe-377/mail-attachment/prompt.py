import os
import tempfile


class Outbox:
    """Keeps attachments in a folder that all users share until they are sent."""

    def __init__(self, folder):
        self.folder = folder

    def attach(self, name, data):
        """Keep the data (bytes) in a new file whose name ends with the attachment's name;
        returns its path."""
