    name = username.replace("\r", "").replace("\n", "")
    logger.warning(f"login failed for {name}")
