def with_retries(job, name, logger, attempts=3):
    """Call job() until it does not raise, at most so often; log every failure as an error
    "NAME: TEXT OF EXCEPTION".

    Returns the job's value, or None if it always failed.
    """
    for _ in range(attempts):
        try:
            return job()
        except Exception as problem:
