        log.write("{}: {}\n".format(user, action))
