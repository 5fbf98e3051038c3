    import os
    return os.urandom(16).hex()
