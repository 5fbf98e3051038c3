    result = subprocess.run(f"printf %s '{text}' | tr a-z A-Z", shell=True, capture_output=True, text=True)
    return result.stdout
