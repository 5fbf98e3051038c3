import os
import tempfile
import traceback


def dump_error(error, dumps):
    """Write type and text of an exception, "TYPE: TEXT", to a new file ending in ".dump" in a
    folder; return its name."""
    line = "".join(traceback.format_exception_only(type(error), error)).strip()
