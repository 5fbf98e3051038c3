import os


def spool_for(user):
    """Make the folder spool/USER for a user's unsent mail, if it is missing, and return its path."""
    path = os.path.join("spool", user)
