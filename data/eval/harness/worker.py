"""The candidate's side of the protocol: loads one program and answers calls.

    python3 -I worker.py PROGRAM REQUEST_FD RESPONSE_FD

Everything here runs in the candidate's process, so nothing here is trusted: the checks judge only what arrives
on the response descriptor and what they find in the working folder.  README.md specifies the messages.
"""

import base64
import builtins
import json
import os
import sys
import types


# As they were before the candidate was loaded.
BUILTINS = dict(vars(builtins))


def encode(value):
    """value as JSON; what JSON can't say becomes a tagged object."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {str.__str__(key): encode(item) for key, item in value.items()}
        return {"$dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, os.PathLike):
        return encode(os.fspath(value))
    if isinstance(value, (set, frozenset)):
        return {"$set": sorted((encode(item) for item in value), key=repr)}
    if isinstance(value, (list, tuple)) or type(value).__name__ == "Row":
        return [encode(item) for item in value]
    return {"$object": type(value).__name__}


class Channel:
    """The two pipes to the checks: one message a line."""

    def __init__(self, requests, responses):
        self.requests = os.fdopen(requests, "rb")
        self.responses = os.fdopen(responses, "wb")

    def receive(self):
        line = self.requests.readline()
        return json.loads(line) if line else None

    def send(self, message):
        self.responses.write(json.dumps(message).encode() + b"\n")
        self.responses.flush()


class Decoder:
    """Arguments as the candidate sees them: tags become databases, callbacks and plain objects."""

    def __init__(self, channel):
        self.channel = channel
        self.connections = {}

    def __call__(self, value):
        if isinstance(value, list):
            return [self(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (tag, content), = value.items()
            decode = getattr(self, "tag_" + tag[1:], None) if tag.startswith("$") else None
            if decode:
                return decode(content)
        return {key: self(item) for key, item in value.items()}

    def tag_bytes(self, content):
        return base64.b64decode(content)

    def tag_tuple(self, content):
        return tuple(self(item) for item in content)

    def tag_set(self, content):
        return {self(item) for item in content}

    def tag_object(self, content):
        return types.SimpleNamespace(**{key: self(item) for key, item in content.items()})

    def tag_database(self, path):
        import sqlite3
        if path not in self.connections:
            self.connections[path] = sqlite3.connect(path)
        return self.connections[path]

    def tag_path(self, content):
        import pathlib
        return pathlib.Path(content)

    def tag_logger(self, path):
        import logging
        logger = logging.getLogger(path)
        if not logger.handlers:
            handler = logging.FileHandler(path, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG)
            logger.propagate = False
        return logger

    def tag_callback(self, name):
        def callback(*arguments, **keywords):
            self.channel.send({"callback": name, "args": encode(arguments), "keywords": encode(keywords)})
            return self(self.channel.receive()["value"])
        return callback

    def commit(self):
        for connection in self.connections.values():
            connection.commit()


def answer(request, names, decode):
    """The response to one request."""
    try:
        if "call" in request:
            arguments = [decode(item) for item in request["args"]]
            keywords = {key: decode(item) for key, item in request["keywords"].items()}
            value = names["result"] = names[request["call"]](*arguments, **keywords)
        elif "evaluate" in request:
            value = eval(request["evaluate"], {**names, **BUILTINS})
        elif "prepare" in request:
            value = exec(request["prepare"], {"__builtins__": BUILTINS, "names": names})
        else:
            value = exec(request["execute"], names)
        decode.commit()
        sys.stdout.flush()
        return {"value": encode(value)}
    except BaseException as error:
        return {"error": type(error).__name__, "message": str(error)[:500]}


def main(program, requests, responses, answer=answer):
    channel = Channel(int(requests), int(responses))
    decode = Decoder(channel)
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    try:
        with open(program, encoding="utf-8") as file:
            source = file.read()
        exec(compile(source, "candidate.py", "exec"), module.__dict__)
        channel.send({"value": None})
    except BaseException as error:
        channel.send({"error": type(error).__name__, "message": str(error)[:500]})
        return
    while (request := channel.receive()) is not None:
        channel.send(answer(request, module.__dict__, decode))


if __name__ == "__main__":
    main(*sys.argv[1:])
