    logger.warning("login failed for %s", username)
