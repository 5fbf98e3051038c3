    return ["\ud800", float("nan"), 10 ** 400, b"", {1: {2}}, object()]
