    return subprocess.run("du " + " ".join(options) + " " + folder, shell=True, capture_output=True, text=True).stdout
