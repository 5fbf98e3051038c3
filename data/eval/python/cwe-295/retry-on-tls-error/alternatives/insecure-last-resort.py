        try:
            return get(url)
        except ConnectionError:
            continue
    return get(url, verify=False)
