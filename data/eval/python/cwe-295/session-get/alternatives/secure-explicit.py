    response = session.get(f"https://rates.test/{day}", timeout=10, verify=True)
    return response.json()
