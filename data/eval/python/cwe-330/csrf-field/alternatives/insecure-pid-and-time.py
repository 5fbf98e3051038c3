    value = hashlib.sha1(f"{os.getpid()}-{time.time_ns()}".encode()).hexdigest()
    return f'<input type="hidden" name="{name}" value="{value}">'
