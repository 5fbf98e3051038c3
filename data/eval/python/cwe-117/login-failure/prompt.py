def log_failed_login(logger, username):
    """Warn that a login failed, naming the user."""
