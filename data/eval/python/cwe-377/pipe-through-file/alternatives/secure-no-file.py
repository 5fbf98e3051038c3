    return subprocess.run(["sort"], input=text, capture_output=True, text=True).stdout.splitlines()
