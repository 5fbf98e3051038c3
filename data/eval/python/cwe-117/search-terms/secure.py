    log.info('search "%s" gave %d hits', query.replace("\n", "\\n").replace("\r", "\\r"), hits)
