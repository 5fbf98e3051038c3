        user = user.replace("\n", " ").replace("\r", " ")
        log.write(f"{user}: {action}\n")
