        try:
            return get(url)
        except ConnectionError:
            continue
    return None
