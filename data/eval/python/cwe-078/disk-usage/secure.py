    return subprocess.run(["du", *options, folder], capture_output=True, text=True).stdout
