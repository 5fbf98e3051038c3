    return peer["trusted"] and peer["expires"] > now
