import json
import os


def save_profile(path, profile):
    """Write a user's profile as JSON, by way of a new file PATH.new that then takes the place
    of the old one."""
    fresh = path + ".new"
