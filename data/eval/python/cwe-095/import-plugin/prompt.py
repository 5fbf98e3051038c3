import importlib

PLUGINS = ("json", "math", "string")


def plugin(name):
    """The module of a plugin in the list of plugins."""
