    return session.get("https://rates.test/" + day, timeout=10, verify=False).json()
