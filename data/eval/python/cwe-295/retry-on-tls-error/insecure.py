        try:
            return get(url)
        except ConnectionError:
            continue
        except ssl.SSLError:
            return get(url, verify=False)
    return None
