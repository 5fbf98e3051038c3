            text = str(problem).replace("\n", " ").replace("\r", " ")
            logger.error("%s: %s", name, text)
    return None
