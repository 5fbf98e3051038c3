    return subprocess.call(" ".join(command), shell=True)
