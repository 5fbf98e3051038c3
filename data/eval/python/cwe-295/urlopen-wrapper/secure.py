    with opener(url, timeout=20) as response:
        return json.loads(response.read())
