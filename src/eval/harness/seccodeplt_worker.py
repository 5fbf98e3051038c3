"""The process of a candidate of SecCodePLT: calls its function with keywords, answers with the value's text.

    python3 -I seccodeplt_worker.py PROGRAM REQUEST_FD RESPONSE_FD

A request is {"function", "arguments"}, or {"function", "source", "statements"} for arguments that are more than
data.  The answer is {"text"}, {"digest", "length"} of a long one, or {"kinds", "message"} for an exception: its class and those above it.
"""

import hashlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import worker  # noqa: E402

LONG = 100_000


def answer(request, names, decode):
    try:
        if "source" in request:
            values = dict(names)
            exec(request["statements"], values)
            arguments = eval(request["source"], values)
        else:
            arguments = decode(request["arguments"])
        text = str(names[request["function"]](**arguments))
        if len(text) <= LONG:
            return {"text": text}
        return {"digest": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), "length": len(text)}
    except BaseException as error:
        kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
        return {"kinds": kinds, "message": str(error)[:200]}


if __name__ == "__main__":
    worker.main(*sys.argv[1:], answer=answer)
