            logger.error("%s: %s", name, problem)
    return None
