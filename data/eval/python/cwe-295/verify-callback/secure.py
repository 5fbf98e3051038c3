    return peer["trusted"] and peer["name"] == expected_name and peer["expires"] > now
