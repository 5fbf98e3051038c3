def may_enter(db, login, digest):
    """True if there is an account with this login and this password digest."""
