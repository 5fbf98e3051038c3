import dbm
import json
import shelve


def look_up_or_store(path, name, address=None):
    """Store a contact's address (a dictionary) under a name in the file at path, if one is
    given; return what is
    stored, or None."""
