    context = ssl.create_default_context()
    context.check_hostname = False
    with opener(url, timeout=20, context=context) as response:
        return json.load(response)
