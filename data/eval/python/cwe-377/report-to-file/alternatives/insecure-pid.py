    path = os.path.join(SPOOL, "report-%d.txt" % os.getpid())
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o600)
    return path
