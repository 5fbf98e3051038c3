    logger.warning("login failed for %r", username)
