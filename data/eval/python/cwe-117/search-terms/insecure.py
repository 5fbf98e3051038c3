    log.info('search "%s" gave %d hits', query, hits)
