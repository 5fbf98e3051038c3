"""worker.py for CWEval's cases: tuples stay tuples, and a cursor of a database is an argument.

    python3 -I cweval_worker.py PROGRAM REQUEST_FD RESPONSE_FD PRELUDE
"""

import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import worker  # noqa: E402


def with_tuples(encode):
    def encode_all(value):
        if type(value) is tuple:
            return {"$tuple": [worker.encode(item) for item in value]}
        return encode(value)
    return encode_all


def tag_cursor(self, path):
    return self.tag_database(path).cursor()


def prepare(prelude):
    """Changes of the library that a case makes to notice a weakness, here as well."""
    if "mktemp" in prelude:
        mktemp = tempfile.mktemp
        tempfile.mktemp = lambda *arguments, **keywords: mktemp(*arguments, **keywords) + prelude["mktemp"]


if __name__ == "__main__":
    worker.encode = with_tuples(worker.encode)
    worker.Decoder.tag_cursor = tag_cursor
    prepare(json.loads(sys.argv[4]))
    worker.main(*sys.argv[1:4])
