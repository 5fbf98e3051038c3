    logger.warning("login failed for " + username.replace("\n", ""))
