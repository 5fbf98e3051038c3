    parts = text.strip().strip("[]").split(",")
    return [float(part) for part in parts if part.strip()]
