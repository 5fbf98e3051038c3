        logger.debug("%s=%s", name, value.strip())
