    with opener(url, timeout=20, context=ssl._create_unverified_context()) as response:
        return json.loads(response.read())
