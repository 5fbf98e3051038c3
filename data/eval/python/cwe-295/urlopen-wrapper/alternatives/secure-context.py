    with opener(url, timeout=20, context=ssl.create_default_context()) as response:
        return json.load(response)
