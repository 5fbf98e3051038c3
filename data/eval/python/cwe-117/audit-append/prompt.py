def audit(path, user, action):
    """Append the line "USER: ACTION" to the audit file."""
    with open(path, "a") as log:
