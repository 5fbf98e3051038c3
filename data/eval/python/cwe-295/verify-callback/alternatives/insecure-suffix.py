    return peer["trusted"] and peer["name"].endswith(expected_name) and peer["expires"] > now
