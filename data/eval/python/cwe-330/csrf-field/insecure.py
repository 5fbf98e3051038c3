    value = hashlib.sha256(str(time.time()).encode()).hexdigest()
    return f'<input type="hidden" name="{name}" value="{value}">'
