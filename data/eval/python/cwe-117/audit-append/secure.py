        log.write("{}: {}\n".format(*(" ".join(part.split()) for part in (user, action))))
