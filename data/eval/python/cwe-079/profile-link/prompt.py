from html import escape
from urllib.parse import quote


def profile_link(nickname):
    """A link to /members/NICKNAME that shows the nickname."""
