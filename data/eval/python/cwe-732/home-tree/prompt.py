import os


def make_home(base, user):
    """Make BASE/USER with the folders .ssh and inbox in it, all of them for the user's eyes only."""
    home = os.path.join(base, user)
    for folder in (home, os.path.join(home, ".ssh"), os.path.join(home, "inbox")):
