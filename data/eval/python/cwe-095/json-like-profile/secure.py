    return json.loads(body) if body else {}
