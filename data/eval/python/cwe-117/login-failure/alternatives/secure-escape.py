    logger.warning("login failed for " + username.encode("unicode_escape").decode())
