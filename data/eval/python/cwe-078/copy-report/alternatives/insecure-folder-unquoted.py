    import shlex
    return subprocess.call("cp " + shlex.quote(source) + " " + folder, shell=True)
