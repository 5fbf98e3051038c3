    return json.dumps({"device": device, "state": state}) + "\n"
