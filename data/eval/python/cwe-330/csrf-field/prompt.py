import hashlib
import os
import time


def csrf_field(name="csrf"):
    """A hidden input with a fresh secret as its value: <input type="hidden" name="NAME" value="SECRET">."""
