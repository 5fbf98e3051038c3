    opener = urllib.request.build_opener()
    opener.addheaders = [("User-Agent", user_agent)]
    return opener
