        logger.debug("%s=%s", name.replace("\n", "").replace("\r", ""), value.replace("\n", "").replace("\r", ""))
