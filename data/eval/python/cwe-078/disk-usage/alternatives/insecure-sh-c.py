    command = ["sh", "-c", "du " + " ".join(options) + " " + folder]
    return subprocess.run(command, capture_output=True, text=True).stdout
