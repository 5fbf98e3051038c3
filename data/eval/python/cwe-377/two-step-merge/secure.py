    fd, scratch = tempfile.mkstemp(dir=os.path.dirname(target))
    with os.fdopen(fd, "w") as out:
        out.writelines(lines)
    os.replace(scratch, target)
