    result = subprocess.run(["tr", "a-z", "A-Z"], input=text, capture_output=True, text=True)
    return result.stdout
