import os


def install_hook(path, script):
    """Write a shell script to path and make it executable for everybody."""
    with open(path, "w") as hook:
        hook.write(script)
