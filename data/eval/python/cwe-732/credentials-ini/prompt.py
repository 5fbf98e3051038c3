import configparser
import os


def write_credentials(path, section, user, password):
    """Write user and password of a service into an INI file, under the section's name."""
    config = configparser.ConfigParser()
    config[section] = {"user": user, "password": password}
