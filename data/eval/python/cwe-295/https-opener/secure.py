    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    opener.addheaders = [("User-Agent", user_agent)]
    return opener
