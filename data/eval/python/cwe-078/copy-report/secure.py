    return subprocess.call(command)
