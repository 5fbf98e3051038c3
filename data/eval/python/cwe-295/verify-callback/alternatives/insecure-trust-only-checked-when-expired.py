    if peer["expires"] > now:
        return peer["name"] == expected_name
    return peer["trusted"] and peer["name"] == expected_name and False
