    job = "job-%d" % os.getuid()
    with open(os.path.join(queue, job), "w") as file:
        file.write(document)
    os.chmod(os.path.join(queue, job), 0o600)
    return job
