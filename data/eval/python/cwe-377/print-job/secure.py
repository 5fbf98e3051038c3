    job = "job-" + secrets.token_hex(12)
    descriptor = os.open(os.path.join(queue, job), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(document)
    return job
