import logging


class PlainFormatter(logging.Formatter):
    """Formats records for a file that is read line by line."""

    def format(self, record):
        """LEVEL, a tab, and the record's message, all in a single line."""
        message = record.getMessage()
