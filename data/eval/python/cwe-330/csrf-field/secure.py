    value = os.urandom(16).hex()
    return f'<input type="hidden" name="{name}" value="{value}">'
