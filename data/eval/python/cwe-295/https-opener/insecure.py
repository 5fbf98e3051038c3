    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))
    opener.addheaders = [("User-Agent", user_agent)]
    return opener
